// The dialogs.
import { ActionDialog, DeploymentDialog, ReleaseDialog } from "./act.tsx";
import { BulkDialog } from "./act_many.tsx";
import { action, bulk, doDeployment, release } from "./doing.ts";
import { Drawer } from "./drawer.tsx";
import { Help } from "./help.tsx";
import { Palette } from "./palette.tsx";
import { KeyDialog, opened } from "./shell.tsx";
import { useSignal } from "./signal.ts";

export function Dialogs() {
  const name = useSignal(opened);
  const one = useSignal(action);
  const many = useSignal(bulk);
  const lease = useSignal(release);
  const deployment = useSignal(doDeployment);
  return (
    <>
      <KeyDialog />
      {name === "palette" && <Palette />}
      {name === "help" && <Help />}
      {name === "live" && <Drawer />}
      {one && <ActionDialog key={`${one.verb}${one.subject.id}`} {...one} />}
      {many && <BulkDialog key={JSON.stringify(many)} {...many} />}
      {lease && <ReleaseDialog key={lease.lease} {...lease} />}
      {deployment && <DeploymentDialog key={`${deployment.verb}${deployment.id}`} {...deployment} />}
    </>
  );
}
