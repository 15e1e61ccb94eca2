// Builds the program from operator.ts into dist/.
//
//   npm run build                 for this machine
//   npm run build -- --all        for both Linux architectures as well
//   npm run build -- --static     static binaries or none
//
//   statefulcluster.cjs           operator.ts and its packages, one readable file
//   statefulcluster-<os>-<cpu>    that file inside Node; needs neither Node nor npm
//   image.tar                     the Linux binaries as a container image, which Docker is not needed for
//   THIRD-PARTY-LICENSES          of what is inside
//   SHA256SUMS                    of all of these
//
// Two builds of one commit give the same bytes, in whatever folder. What is not in the commit: a
// binary depends on the `strip` of the machine, and an image on the machine's C libraries.
//
// A binary is static where pkg's static Node can be downloaded. Elsewhere it is a single executable
// made of the Node that package-lock.json pins by its hash, and needs the C libraries of a usual
// Linux. Not built: Windows, and macOS on arm64, for which npm has no Node 24.

import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import * as esbuild from 'esbuild';

const run = promisify(execFile);
const root = import.meta.dirname;
const dist = path.join(root, 'dist');
const cache = path.join(root, 'node_modules/.cache/statefulcluster');
const bundle = path.join(dist, 'statefulcluster.cjs');
const read = (...parts) => fs.readFileSync(path.resolve(root, ...parts), 'utf8');
const digest = (algorithm, encoding, file) => hash(algorithm, fs.readFileSync(file), encoding);
const project = JSON.parse(read('package.json'));

// ═══ BUNDLE ══════════════════════════════════════════════════════════════════════════════════════

/** Of the client the operator needs KubeConfig; its index re-exports a thousand files besides, so
 *  it is passed by. What these files import but do not use stays out as well: merely importing one
 *  of them does nothing, which the package fails to say. So do the models, the second HTTP client
 *  and the proxies of its API classes: requests are ours, and `run` refuses a proxy-url. They were
 *  six sevenths of the bundle, and a third of the time to start. */
const onlyKubeConfig = {
  name: 'only-kube-config',
  setup(build) {
    const client = path.join(root, 'node_modules/@kubernetes/client-node/dist');
    const absent = /^(undici|socks|socks-proxy-agent|hpagent)$/;
    build.onResolve({ filter: absent }, ({ path }) => ({ path, namespace: 'absent' }));
    build.onLoad({ filter: /./, namespace: 'absent' }, () => ({
      contents: 'module.exports = {};',
    }));
    build.onLoad({ filter: /gen.models.all\.js$/ }, () => ({ contents: '' }));
    build.onResolve({ filter: /^(@kubernetes\/client-node$|\.)/ }, ({ path: name, resolveDir }) => {
      if (!name.startsWith('.')) return { path: path.join(client, 'config.js') };
      if (!resolveDir.startsWith(client) || !name.endsWith('.js')) return undefined;
      return { path: path.resolve(resolveDir, name), sideEffects: false };
    });
  },
};

/** Makes the one CommonJS file, because a single executable of Node 24 takes no other format.
 *  CommonJS has neither import.meta nor a top-level await: the last line of operator.ts, which has
 *  them, is switched off, and the entry here stands in for it. Returns the packages inside. */
async function makeBundle() {
  const entry = `import { main } from './operator.ts';
main(process.argv.slice(2)).then(process.exit);`;
  const { metafile } = await esbuild.build({
    stdin: { contents: entry, resolveDir: root, sourcefile: 'entry.js' },
    define: {
      'import.meta.main': 'false',
      'process.env.STATEFULCLUSTER_VERSION': JSON.stringify(project.version),
      'process.env.STATEFULCLUSTER_MANIFEST': JSON.stringify(read('deploy.yaml')),
    },
    banner: { js: `// ${project.name} ${project.version} · ${project.license} · see operator.ts` },
    absWorkingDir: root, // Paths in the comments are relative to it: the bytes do not depend on it.
    outfile: bundle,
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    keepNames: true,
    charset: 'utf8',
    legalComments: 'eof',
    metafile: true,
    plugins: [onlyKubeConfig],
  });
  const { inputs } = metafile.outputs['dist/statefulcluster.cjs'];
  const files = Object.keys(inputs).filter((file) => inputs[file].bytesInOutput > 0);
  const folders = files.map((file) => /^.*node_modules\/(@[^/]+\/)?[^/]+/.exec(file)?.[0]);
  return [...new Set(folders)].filter((folder) => folder !== undefined).sort();
}

/** Licences ask to go wherever their code goes. */
function writeLicenses(file, folders) {
  const texts = folders.map((folder) => {
    const { name, version, license } = JSON.parse(read(folder, 'package.json'));
    const files = fs
      .readdirSync(path.resolve(root, folder))
      .filter((f) => /^(licen|notice)/i.test(f));
    const text = files.map((f) => read(folder, f).trim());
    return [`═══ ${name} ${version} · ${license}`, ...text].join('\n\n');
  });
  fs.writeFileSync(file, texts.join('\n\n') + '\n');
}

// ═══ NODE ════════════════════════════════════════════════════════════════════════════════════════

/** Runs a tool of pkg on this very Node, with its two cache folders inside ours. */
function runPkg(tool, args) {
  const bin = path.join(root, 'node_modules/@yao-pkg', tool, 'lib-es5/bin.js');
  const env = { ...process.env, HOME: cache, PKG_CACHE_PATH: cache, NO_COLOR: '1' };
  return run(process.execPath, [bin, ...args], { cwd: dist, env });
}

/** The version of pkg's static Node, now in the cache, or why it is missing. pkg pins its hash. */
async function findStaticNode(platform) {
  const [os, cpu] = platform.split('-');
  if (os !== 'linux') return { missing: 'only Linux has one' };
  const wanted = ['-n', 'node24', '-p', 'linuxstatic', '-a', cpu, '--force-fetch'];
  try {
    const { stdout } = await runPkg('pkg-fetch', wanted);
    return { version: /v([\d.]+)-linuxstatic/.exec(stdout)[1] };
  } catch (error) {
    return { missing: /Error! (.*)/.exec(`${error.stdout}${error.stderr}`)?.[1] ?? error.message };
  }
}

/** The pinned Node: as npm ci installed it for this machine, or fetched for another one and held
 *  against the hash in package-lock.json. */
async function findPinnedNode(platform) {
  const name = `node-${platform}`;
  const version = project.optionalDependencies[name];
  if (!version) throw new Error(`package.json pins no Node for ${platform}`);
  const installed = path.join(root, 'node_modules', name);
  if (fs.existsSync(installed)) return { version, folder: installed };
  const folder = path.join(cache, name);
  const tarball = path.join(cache, `${name}-${version}.tgz`);
  fs.mkdirSync(folder, { recursive: true });
  await run('npm', ['pack', `${name}@${version}`, '--pack-destination', cache]);
  const { integrity } = JSON.parse(read('package-lock.json')).packages[`node_modules/${name}`];
  if (`sha512-${digest('sha512', 'base64', tarball)}` !== integrity) {
    throw new Error(`${name}@${version} is not what package-lock.json pins`);
  }
  await run('tar', ['-xzf', tarball, '-C', folder, '--strip-components=1']);
  return { version, folder };
}

/** Symbols are a seventh of the file and serve only a debugger of Node. A strip may not know the
 *  other architecture; if none does, they stay. */
async function dropSymbols(file, platform) {
  if (!platform.startsWith('linux')) return;
  for (const strip of ['strip', 'aarch64-linux-gnu-strip', 'llvm-strip']) {
    if (await run(strip, [file]).then(Boolean, () => false)) break;
  }
}

// ═══ BINARY ══════════════════════════════════════════════════════════════════════════════════════

/** Puts the bundle into a Node, as Node's manual for single executables says. `pkg --sea` does that
 *  too, but it writes the path of this folder into the file, so that each clone would give another
 *  one. No code cache either: it saves 3 ms of the start, and is different in each build. */
async function embed(platform, { version, folder }, file) {
  if (process.versions.node !== version) {
    throw new Error(`${platform} takes Node ${version} to build, this is ${process.versions.node}`);
  }
  const [config, blob] = ['sea.json', 'sea.blob'].map((name) => path.join(cache, name));
  const sea = { main: path.basename(bundle), output: blob, disableExperimentalSEAWarning: true };
  fs.mkdirSync(cache, { recursive: true });
  fs.writeFileSync(config, JSON.stringify(sea));
  await run(process.execPath, ['--experimental-sea-config', config], { cwd: dist });
  fs.copyFileSync(path.join(folder, 'bin/node'), file);
  await dropSymbols(file, platform);
  const inject = path.join(root, 'node_modules/postject/dist/cli.js'); // Comes with pkg.
  const fuse = ['--sentinel-fuse', 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'];
  const mac = platform.startsWith('darwin');
  if (mac) fuse.push('--macho-segment-name', 'NODE_SEA');
  await run(process.execPath, [inject, file, 'NODE_SEA_BLOB', blob, ...fuse]);
  if (mac) await run('codesign', ['--force', '--sign', '-', file]);
}

/** Makes the binary for one platform. Returns its file and a line about it. */
async function makeBinary(platform, staticOnly) {
  const file = path.join(dist, `statefulcluster-${platform}`);
  const base = await findStaticNode(platform);
  if (base.version) {
    const target = `node${base.version}-${platform.replace('linux', 'linuxstatic')}`;
    const asText = ['--no-bytecode', '--public', '--public-packages', '*']; // Readable inside, too.
    await runPkg('pkg', [bundle, '-t', target, '-o', file, ...asText]);
    return { file, about: `static, Node ${base.version}` };
  }
  if (staticOnly) throw new Error(`no static Node for ${platform} from pkg: ${base.missing}`);
  const pinned = await findPinnedNode(platform);
  await embed(platform, pinned, file);
  const needs = platform.startsWith('linux') ? 'glibc 2.28 and libstdc++' : 'nothing else';
  return { file, about: `Node ${pinned.version}, needs ${needs} (not static: ${base.missing})` };
}

// ═══ IMAGE ═══════════════════════════════════════════════════════════════════════════════════════

/** What ld.so reads of a 64-bit ELF file: its machine, its interpreter, the libraries it needs. */
function readElf(elf) {
  const u64 = (at) => Number(elf.readBigUInt64LE(at));
  const text = (at) => elf.toString('latin1', at, elf.indexOf(0, at));
  const segments = Array.from({ length: elf.readUInt16LE(56) }, (_, i) => {
    const at = u64(32) + i * elf.readUInt16LE(54);
    return {
      type: elf.readUInt32LE(at),
      at: u64(at + 8),
      address: u64(at + 16),
      size: u64(at + 32),
    };
  });
  const [LOAD, DYNAMIC, INTERP] = [1, 2, 3].map((n) => segments.filter(({ type }) => type === n));
  const [NEEDED, STRTAB] = [1, 5];
  const tags = [];
  for (const { at, size } of DYNAMIC) {
    for (let tag = at; tag < at + size; tag += 16) tags.push([u64(tag), u64(tag + 8)]);
  }
  const address = tags.find(([tag]) => tag === STRTAB)?.[1];
  const home = LOAD.findLast((segment) => segment.address <= address);
  const strings = home && address - home.address + home.at;
  const needed = tags.filter(([tag]) => tag === NEEDED).map(([, at]) => text(strings + at));
  return { machine: elf.readUInt16LE(18), interpreter: INTERP[0] && text(INTERP[0].at), needed };
}

/** The C libraries that a binary needs, by their paths in the image, as this machine has them: where
 *  its own ld.so looks, or for the other architecture where Debian's cross packages put them. */
function findLibraries(binary, cpu) {
  const triplet = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[cpu];
  const native = `lib/${triplet}`;
  const folders = [
    `/${native}`,
    `/usr/lib/${triplet}`,
    '/lib64',
    '/usr/lib64',
    `/usr/${triplet}/lib`,
  ];
  const { machine, interpreter, needed } = readElf(binary);
  const files = {};
  const add = (name, isNeeded) => {
    for (const folder of folders) {
      const file = path.join(folder, name);
      const content = fs.existsSync(file) && fs.readFileSync(file);
      if (!content || readElf(content).machine !== machine) continue;
      const home = name === path.basename(interpreter) ? path.dirname(interpreter) : folder;
      const place = path.join(home.endsWith('/lib') ? native : home.slice(1), name);
      if (files[place]) return;
      files[place] = content;
      return readElf(content).needed.forEach((other) => add(other, true));
    }
    if (isNeeded) throw new Error(`this machine has no ${name} for ${cpu}`);
  };
  if (!interpreter) return {}; // Static.
  for (const name of [path.basename(interpreter), ...needed]) add(name, true);
  // Before glibc 2.34 these looked up host names; the names of later ones are empty.
  for (const name of ['libnss_files.so.2', 'libnss_dns.so.2']) add(name, false);
  return files;
}
async function build(args) {
  const options = { all: { type: 'boolean' }, static: { type: 'boolean' } };
  const { values } = parseArgs({ args, options });
  const host = `${process.platform}-${process.arch}`;
  const platforms = new Set(values.all ? [host, 'linux-x64', 'linux-arm64'] : [host]);

  fs.rmSync(dist, { recursive: true, force: true });
  const licenses = path.join(dist, 'THIRD-PARTY-LICENSES');
  writeLicenses(licenses, [...(await makeBundle()), (await findPinnedNode(host)).folder]);
  const made = [{ file: bundle, about: 'for Node 24' }];
  made.push({ file: licenses, about: 'text' });
  for (const platform of platforms) made.push(await makeBinary(platform, values.static));

  let sums = '';
  for (const { file, about } of made) {
    const line = `${digest('sha256', 'hex', file)}  ${path.basename(file)}\n`;
    console.log(`${line}  ${(fs.statSync(file).size / 1e6).toFixed(1)} MB, ${about}`);
    sums += line;
  }
  fs.writeFileSync(path.join(dist, 'SHA256SUMS'), sums);
}

build(process.argv.slice(2)).catch((error) => {
  console.error(`build: ${error.message.trim()}\n${error.stdout ?? ''}`.trim());
  process.exitCode = 1;
});
