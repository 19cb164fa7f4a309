import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import { defineConfig } from "vite";

const WORTH_IT = /\.(js|css|html|svg|ttf|json)$/;
const brotli = (data) => promisify(brotliCompress)(data, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } });
const gz = (data) => promisify(gzip)(data, { level: 9 });

// Compresses each file at build time, because the server sends files without compressing them.
const compressed = {
  name: "compressed",
  async writeBundle({ dir }) {
    const files = (await readdir(dir, { recursive: true })).filter((name) => WORTH_IT.test(name));
    await Promise.all(files.map((name) => compress(join(dir, name))));
  },
};

async function compress(file) {
  const data = await readFile(file);
  await Promise.all([
    brotli(data).then((small) => writeFile(`${file}.br`, small)),
    gz(data).then((small) => writeFile(`${file}.gz`, small)),
  ]);
}

// `vite build` builds the live page, then `vite build --mode graphiql` adds GraphiQL: they share no files, so that the
// first visit to the page loads few and small ones.
export default defineConfig(({ mode }) => {
  const isGraphiQL = mode === "graphiql";
  return {
    base: "./",
    build: {
      outDir: "built",
      assetsDir: "assets",
      emptyOutDir: !isGraphiQL,
      assetsInlineLimit: 0,
      chunkSizeWarningLimit: 5000,
      target: "es2022",
      modulePreload: { polyfill: false },
      rolldownOptions: { input: isGraphiQL ? "graphiql/index.html" : "index.html" },
    },
    plugins: isGraphiQL ? [compressed] : [],
    test: { include: ["page/**/*.test.ts"] },
  };
});
