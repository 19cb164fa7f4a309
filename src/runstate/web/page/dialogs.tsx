// The dialogs, loaded when the first one of a kind is opened.
import { action, bulk, doDeployment, release } from "./doing.ts";
import { lazy } from "./lazy.tsx";
import { KeyDialog, opened } from "./shell.tsx";
import { useSignal } from "./signal.ts";

const Palette = lazy(() => import("./palette.tsx").then((module) => module.Palette));
const Help = lazy(() => import("./help.tsx").then((module) => module.Help));
const Drawer = lazy(() => import("./drawer.tsx").then((module) => module.Drawer));
const ActionDialog = lazy(() => import("./act.tsx").then((module) => module.ActionDialog));
const BulkDialog = lazy(() => import("./act_many.tsx").then((module) => module.BulkDialog));
const ReleaseDialog = lazy(() => import("./act.tsx").then((module) => module.ReleaseDialog));
const DeploymentDialog = lazy(() => import("./act.tsx").then((module) => module.DeploymentDialog));

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
