// The tests of operator.ts, first; the harness that they stand on, below: an embedded API server
// (A), actors beside it (B), worlds to run in (C), and the demo of `npm start` on all of them.
//   node operator.test.ts                  the tests
//   node operator.test.ts start [flags]    the main job, drawn: --stay, --cast FILE
//   node operator.test.ts sim [flags]      seeds that try to break every promise
//   node operator.test.ts smoke BINARY     a built binary brings the example to Ready
//   node operator.test.ts image FILE DIR   a built image is whole; its root goes to DIR
//   node operator.test.ts bench            what it costs, beside what it could cost at least
//   node operator.test.ts record           what a real API server answers, for RECORDED
// F1 to F45 in titles are rows of the list of failures to survive; I1 to I10 are the invariants.
// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import path, { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { rootCertificates } from 'node:tls';
import { isDeepStrictEqual as same, parseArgs, stripVTControlCharacters } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { gunzipSync } from 'node:zlib';
import type * as k8s from '@kubernetes/client-node';
import { loadAllYaml } from '@kubernetes/client-node';
import kleur from 'kleur';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as op from './operator.ts';
import type { ApiRequest, ApiResponse, Meta, Pod, Raw, WatchEvent, World } from './operator.ts';

const { MARK, claimOf, clusterOf, connect, follow, metaOf, nodeOf, podOf, wordsOf } = op;
const isJudgement = (reason: string): boolean =>
  (op.ENDS as Readonly<Record<string, { kind: string }>>)[reason]?.kind === 'judgement';
const TESTING = process.argv[2] === undefined; // uvu runs what is queued.

// Unit tests of the pure rooms, in tables. A row is text: `why: situation (when) | … → outcome`. A
// situation like `a b c:failed+oos` is three members, oldest first, the third with what flatsOf
// makes of these words; `replicas` is their number, without those after a `!`; overOf reads `when`;
// the table's own function sees the outcome. A row goes on after two spaces; `<a|b>` makes two.

const ROOT = import.meta.dirname;

// ═══ BUILDERS ═══════════════════════════════════════════════════════════════════════════════════

const NOW = Date.UTC(2026, 0, 2);
const UPTIME = 1e7;
const HOUR = 3600;
const ago = (seconds: number): number => NOW - seconds * 1000;
const idAt = (ms: number): string => op.allocate(1, new Set(), ms, () => 0)[0] ?? '';
/** a…e are hours old, v…z minutes. */
const BORN = { a: 36000, b: 32400, c: 28800, d: 25200, e: 21600, v: 390, w: 380, x: 370 };
const ID: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries({ ...BORN, y: 300, z: 200 }).map(([letter, age]) => [letter, idAt(ago(age))]),
);
const id = (letter: string): string => ID[letter] ?? letter;
const LETTER = new Map(Object.entries(ID).map(([letter, identity]) => [identity, letter]));
/** Deterministic chance: the Lehmer generator. */
function chance(seed = 1): () => number {
  let x = seed;
  return () => (x = (x * 16807) % 2147483647) / 2147483647;
}
function explained<T>(dict: Readonly<Record<string, T>>, word: string): T {
  if (!(word in dict)) throw new Error(`the table says "${word}", which nothing explains`);
  return dict[word] as T;
}

type Flat<T> = Partial<Omit<T, 'meta'>> & Partial<Meta>;
const META: Meta = {
  ...{ namespace: 'ns', name: '', uid: '', resourceVersion: '1', generation: 1, labels: {} },
  ...{ annotations: {}, owners: [], createdMs: ago(10 * HOUR), deletedMs: undefined },
};
/** Later flats win; labels and annotations are merged, and undefined takes one away. */
function made<T>(...flats: readonly Flat<T>[]): T {
  const all = Object.entries(Object.assign({}, ...flats));
  const dict = (field: 'labels' | 'annotations') => {
    const laid = Object.assign({}, ...flats.map((f) => f[field]));
    return Object.fromEntries(Object.entries(laid).filter(([, v]) => v !== undefined));
  };
  const own = Object.fromEntries(all.filter(([key]) => !(key in META)));
  const meta = { ...META, ...Object.fromEntries(all.filter(([key]) => key in META)) };
  const dicts = { labels: dict('labels'), annotations: dict('annotations') };
  return { ...own, meta: { ...meta, uid: meta.uid || `uid-${meta.name}`, ...dicts } } as T;
}
const OWNER = { apiVersion: 'enge.me/v1alpha1', kind: 'StatefulCluster', name: 'web', uid: 'U' };
const OURS = { ...OWNER, controller: true, blockOwnerDeletion: true };
const OTHER = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'x', uid: 'X', controller: true };
const FORMER = { ...OURS, uid: 'before' };
const marks = (letter: string) => ({ [MARK.cluster]: 'web', [MARK.identity]: id(letter) });
const CONTAINER = { name: 'm', image: 'c:2', resources: { requests: { cpu: '2' } } };
const DEFAULTS = { imagePullPolicy: 'IfNotPresent' };
const templateOf = (container: object, metadata: object = {}) => ({
  metadata: { labels: { app: 'web' }, ...metadata },
  spec: { containers: [{ ...CONTAINER, ...container }] },
});
const TEMPLATE = templateOf({});
const REVISION = op.revisionHash(TEMPLATE, 0);
/** Templates of the revision `older`, by what an update then changes. */
const FROM: Readonly<Record<string, object>> = {
  ...{ all: { spec: {} }, image: templateOf({ image: 'c:1' }), same: templateOf(DEFAULTS) },
  size: templateOf({ resources: { requests: { cpu: '1' } } }),
  args: templateOf({ args: ['x'] }),
  label: templateOf({}, { labels: { app: 'web', x: '' } }),
  bare: templateOf({ env: [] }),
  annotation: templateOf({}, { annotations: { x: '' } }),
  both: templateOf({ image: 'c:1' }, { annotations: { x: '' } }),
};

function pod(letter: string, ...over: readonly Flat<Pod>[]): Pod {
  const base: Flat<Pod> = {
    ...{ name: `web-${id(letter)}`, owners: [OURS], node: `n-${letter}`, phase: 'Running' },
    ...{ labels: { app: 'web', ...marks(letter), [MARK.revision]: REVISION }, graceSeconds: 30 },
    ...{ claims: [`data-web-${id(letter)}`], ready: true },
    ...{ startedMs: META.createdMs, readySinceMs: ago(9 * HOUR), disruption: '' },
    ...{ mountedMs: META.createdMs, disruptedMs: undefined, restarts: 0, isDown: false },
    ...{ trouble: '', lastWords: '', containers: {}, isObserved: true, resize: '' },
  };
  return made<Pod>(base, ...over);
}
function claim(letter: string, ...over: readonly Flat<op.Claim>[]): op.Claim {
  const base: Flat<op.Claim> = {
    ...{ name: `data-web-${id(letter)}`, labels: marks(letter), phase: 'Bound', spec: {} },
    ...{ volume: `pv-${letter}`, request: '1Gi' },
    annotations: { [MARK.claims]: '', [MARK.selectedNode]: `n-${letter}` },
  };
  return made<op.Claim>(base, ...over);
}
function node(letter: string, ...over: readonly Flat<op.Node>[]): op.Node {
  const labels = { 'kubernetes.io/hostname': `n-${letter}` };
  const base = { name: `n-${letter}`, labels, ready: true, readySinceMs: ago(99 * HOUR) };
  return made<op.Node>({ ...base, unschedulable: false, taints: [] }, ...over);
}
/** A volume that only the node of its member can use, or one that any can. */
function volumeOf(letter: string, isPinned: boolean): op.Volume {
  const here = { key: 'kubernetes.io/hostname', operator: 'In', values: [`n-${letter}`] };
  return isPinned ? [[here]] : [];
}

/** Fields of the spec and of its inner objects, by their own names, and what surrounds it. */
interface Over {
  readonly [field: string]: unknown;
  readonly status?: Partial<op.Status>;
  readonly meta?: Partial<Meta>;
  readonly desk?: Partial<op.Desk>;
  readonly snap?: Partial<op.Snapshot>;
  readonly answers?: Readonly<Record<string, string>>; // By the key of the question; else ''.
  readonly from?: string; // The template of the revision `older`, see FROM.
  readonly pinned?: boolean; // Each volume can only be used on the node of its member.
  readonly watched?: number; // For how many seconds this process has seen what it sees; else 600.
  readonly was?: string; // What `c` was when it was first seen; else what it is.
}
const SURROUNDS = /^(status|meta|desk|snap|answers|from|older|pinned|watched|was|at)$/;
const gi = (size: string, name = 'data') => ({
  metadata: { name },
  spec: { resources: { requests: { storage: size } } },
});
/** As the CRD fills them in; that it does is tested on the control plane. */
const POLICIES = { podManagementPolicy: 'Parallel', replacementPolicy: 'Always' } as const;
const SIZES = { replicas: 1, minReadySeconds: 0, revisionHistoryLimit: 10, suspend: false };
const ROLLING = { partition: 0, maxUnavailable: 1, maxSurge: 0, paused: false };
const JUDGED = { nodeGoneSeconds: 30, nodeUnreachableSeconds: 300, volumeLostSeconds: 60 };
const NEVER = { unreadySeconds: 0, startupSeconds: 0, maxRestarts: 0 };
const MOMENTS = ['whenDeleted', 'whenScaled', 'whenReplaced', 'whenLost'] as const;
const KEPT = Object.fromEntries(MOMENTS.map((when) => [when, 'Retain']));
function cluster(over: Over = {}): op.StatefulCluster {
  const { request, updates, start } = over;
  const inner = (names: RegExp) =>
    Object.fromEntries(Object.entries(over).filter(([field]) => names.test(field)));
  const spec = {
    ...{ ...SIZES, ...POLICIES, selector: { matchLabels: { app: 'web' } }, template: TEMPLATE },
    volumeClaimTemplates: [gi(String(request ?? '1Gi'))],
    liveness: {
      ...{ ...JUDGED, ...NEVER },
      ...inner(/^(node|volume|unready|startup)\w*Seconds$|^max(Restarts|Replacements)/),
    },
    persistentVolumeClaimRetentionPolicy: { ...KEPT, ...inner(/^when/) },
    ...(start !== undefined && { ordinals: { start } }),
    updateStrategy: {
      type: updates ?? 'RollingUpdate',
      rollingUpdate: {
        ...{ ...ROLLING, podUpdatePolicy: 'InPlaceIfPossible' },
        ...inner(/^(partition|paused|maxUnavailable|maxSurge|podUpdatePolicy)$/),
      },
    },
    ...Object.fromEntries(Object.entries(over).filter(([field]) => !SURROUNDS.test(field))),
  };
  const { status, meta } = over;
  return { ...clusterOf({ spec, status }), meta: { ...META, name: 'web', uid: 'U', ...meta } };
}
const DESK: op.Desk = { seen: new Map(), went: new Map(), calm: new Map(), backoff: new Map() };
/** A ControllerRevision as it would be made of this template. */
function revision(of: op.StatefulCluster, number: number, template: object): op.Revision {
  const spec = { ...of.spec, template: template as op.Spec['template'] };
  const { update } = op.updateRevisionOf({ ...of, spec }, new Map());
  const meta = { ...update.meta, uid: `uid-${update.meta.name}`, owners: [OURS] };
  return { ...update, meta, number };
}
function snapshot(text: string, over: Over = {}): op.Snapshot {
  const words = text.split(' ').filter(Boolean);
  const [pods, claims] = [new Map<string, Pod>(), new Map<string, op.Claim>()];
  const nodes = new Map([['n-x', node('x')]]);
  for (const word of words) {
    const [letter = '', states = ''] = word.replace('!', '').split(':');
    const parts = states.split('+').map(flatsOf);
    const all = <T>(kind: keyof Flats) => parts.flatMap((p) => (p[kind] ?? []) as Flat<T>[]);
    const has = (kind: keyof Flats): boolean => parts.every((p) => p[kind] !== null);
    const mounts = [`data-web-${id(letter)}`];
    for (const kind of ['logs', 'spare', 'stray', 'claim'] as const) {
      const name = `${CLAIM_NAMES[kind]}-web-${id(letter)}`;
      if (kind === 'claim' ? !has(kind) : all(kind).length === 0) continue;
      const young = kind === 'claim' ? {} : { createdMs: ago(HOUR) };
      claims.set(name, claim(letter, { name, ...young }, ...all<op.Claim>(kind)));
      if (kind === 'logs') mounts.push(name);
    }
    if (has('pod'))
      pods.set(`web-${id(letter)}`, pod(letter, { claims: mounts }, ...all<Pod>('pod')));
    if (has('node')) nodes.set(`n-${letter}`, node(letter, ...all<op.Node>('node')));
  }
  const one = cluster({ replicas: words.filter((w) => !w.startsWith('!')).length, ...over });
  const older = { ...revision(one, 0, explained(FROM, over.from ?? 'all')), hash: 'older' };
  const known = [revision(one, 1, one.spec.template), { ...older, ...(over['older'] ?? {}) }];
  return {
    ...{ cluster: one, revisions: new Map(known.map((r) => [r.meta.name, r])), bodies: new Map() },
    ...{ pods, claims, nodes, volumes: new Map(), volumesReadable: true, answers: new Map() },
    ...{ desk: { ...DESK, ...over.desk }, uptime: UPTIME, denied: '', ...over.snap },
  };
}
/** A pod of a template, as the API server shows it. */
function bodyRead(revision: op.Revision | undefined, of: Partial<Pod> = {}): Raw {
  const { metadata = {}, spec } = (revision?.template ?? {}) as Raw;
  const labels = { ...metadata.labels, ...of.meta?.labels };
  const annotations = { ...metadata.annotations, ...of.meta?.annotations };
  const containers = (spec?.containers ?? []).map((c: object) => ({ ...DEFAULTS, ...c }));
  const ids = Object.entries(of.containers ?? {});
  const containerStatuses = ids.map(([name, [containerID]]) => ({ name, containerID }));
  return { metadata: { labels, annotations }, spec: { containers }, status: { containerStatuses } };
}
/** What is asked and is in the situation is read, unless the row has another answer. */
function readLive(s: op.Snapshot, refs: readonly op.Ref[], over: Over): op.Snapshot {
  const [answers, volumes, bodies] = [new Map(s.answers), new Map(s.volumes), new Map(s.bodies)];
  for (const ref of refs) {
    const key = op.keyOfRef(ref);
    assert.not.ok(answers.has(key), `${key} is asked again`);
    const words = over.answers?.[key] ?? '';
    answers.set(key, words);
    const found = s.pods.get(ref.name);
    const hash = found?.meta.labels[MARK.revision];
    const made = [...s.revisions.values()].find((r) => r.hash === hash);
    if (words === '' && ref.kind === 'trials') bodies.set(ref.name, bodyRead(ref.trial));
    if (words === '' && ref.kind === 'pods' && found) bodies.set(ref.name, bodyRead(made, found));
    if (words === '' && ref.kind === 'persistentvolumes')
      volumes.set(ref.name, volumeOf(ref.name.slice(3), over.pinned === true));
  }
  return { ...s, answers, volumes, bodies };
}
type Decided = ReturnType<typeof settled>;
const planOf = (s: op.Snapshot, now = NOW): op.Decision => op.plan(s, now, chance());
/** Plans as the controller does, until the plan is an answer. */
function settled(first: op.Snapshot, over: Over, now = NOW) {
  let s = first;
  const asked: string[] = [];
  for (let round = 0; round <= op.BOUNDS.askMax; round++) {
    const p = planOf(s, now);
    if (p.ask === undefined) return { s, p };
    asked.push(p.ask.map(op.keyOfRef).join());
    s = readLive(s, p.ask, over);
  }
  throw new Error(`more rounds than askMax: ${asked.join('; ')}`);
}
/** Decides, after this process has watched for a while. */
function decide(text: string, over: Over = {}): Decided {
  const before = over.was === undefined ? text : text.replace(/c(:\S+)?/, `c:${over.was}`);
  const uptime = UPTIME - (over.watched ?? 600) * 1000;
  const { p } = settled({ ...snapshot(before, over), uptime }, over);
  const s = snapshot(text, over);
  const seen = new Map([...p.evidence.map((key) => [key, uptime] as const), ...s.desk.seen]);
  return settled({ ...s, desk: { ...s.desk, seen } }, over);
}

const plain = (name: string): string => {
  const [, other = '', identity = ''] = /^(?:data-|(.*-))?web-(.*)$/.exec(name) ?? [, '', name];
  return other + (LETTER.get(identity) ?? (op.birthSecond(identity) < 0 ? identity : 'new'));
};
const aboutOf = (a: op.Action): string =>
  plain('object' in a ? a.object.meta.name : a.do === 'Make' ? a.identity : 'web');
function shownAction(a: op.Action): string {
  const subject = aboutOf(a);
  if (a.do === 'Make') {
    const [old = ''] = (a.replaces ?? '').split(' ');
    const index = a.index === undefined ? '' : ` #${a.index}`;
    const word = { Returned: 'back', Recreated: 'again' }[a.because as string];
    if (word) return `${word} ${subject}${index}`;
    return `${subject} ${a.because}${old && ` for ${plain(old)}`}${index}`;
  }
  if (a.do !== 'Patch') return `${a.verb} ${subject} ${a.because}`;
  const { ownerReferences = [], annotations = {} } = (a.change['metadata'] ?? {}) as Raw;
  if (a.verb === 'restore' && annotations[MARK.restore]) return `wish ${subject}`;
  if (a.verb === 'own') {
    const owners = ownerReferences.map((o: { name: string }) => o.name).join() || 'none';
    return `own ${subject} by ${owners}`;
  }
  const storage = (a.change['spec'] as Raw | undefined)?.['resources']?.requests.storage;
  if (a.verb === 'expand') return `expand ${subject} ${storage}`;
  const frees = annotations[MARK.retiredPolicy] === 'Delete' ? ' Delete' : '';
  return `${a.verb} ${subject} ${a.because}${frees}`;
}
/** `over c R` is all that ends it: the mark, then the deletion; `replace c R` is that and `new R
 *  for c`; `lose c R` is the mark and that; `recreate c R` is the announcement and the deletion. */
function planText(p: op.Plan): string {
  let text = `; ${p.actions.map(shownAction).join('; ')};`;
  text = text.replace(/; retire (\w+) (\w+)((?: Delete)?); end \1 \2(?=;)/g, '; over $1 $2$3');
  text = text.replace(/; announce (\w+) (\w+); end \1 \2(?=;)/g, '; recreate $1 $2');
  const loss = /; (over|retire) (\w+) (\w+( Delete)?)(;.*?)?; new \w+ for \2(?: #\d)?;/;
  const word = (verb: string): string => (verb === 'over' ? 'replace' : 'lose');
  while (loss.test(text))
    text = text.replace(loss, (_, v, c, r, _d, rest = '') => `; ${word(v)} ${c} ${r}${rest};`);
  const parts = text.split('; ').map((part) => part.replace(/;$/, ''));
  const times = (part: string): number => parts.filter((other) => other === part).length;
  const many = (part: string): string => (part && times(part) > 1 ? `${times(part)} × ` : '');
  const counted = [...new Set(parts)].map((part) => many(part) + part);
  const waits = p.notes.some((words) => words.startsWith('creations wait')) && 'waits';
  const notes = [p.stalled && 'stalled', waits, p.withheld && 'withheld'];
  return [...counted, ...notes, p.blocked && 'blocked'].filter(Boolean).join('; ') || 'nothing';
}

const note = (key: string, value: string) => ({ annotations: { [key]: value } });
const notReady = (seconds: number) => ({ ready: false, readySinceMs: ago(seconds) });
const ended = (reason: string, seconds: number, policy = 'Retain'): Flat<op.Claim> => {
  const at = { [MARK.retiredAt]: op.timeText(ago(seconds)), [MARK.retiredPolicy]: policy };
  return { labels: { [MARK.retired]: 'true' }, annotations: { [MARK.retired]: reason, ...at } };
};
const unlabelled = { labels: { [MARK.identity]: undefined!, [MARK.cluster]: undefined! } };
const fresh = { createdMs: ago(60), scheduledMs: ago(50), startedMs: ago(40), ...notReady(40) };
const words = { trouble: 'Unschedulable', lastWords: '0/1 nodes' };
const nowhere = { node: '', scheduledMs: undefined, mountedMs: undefined, startedMs: undefined };
const dead = { ...notReady(20), phase: 'Failed' };
const going = { deletedMs: NOW + 30_000, ready: false };
const disrupted = (disruption: string, s = 40) => ({ disruption, disruptedMs: ago(s) });
/** What a word changes of a pod, of a claim, of a node. */
const POD: Readonly<Record<string, Flat<Pod>>> = {
  claimless: { claims: [] },
  unscheduled: { createdMs: ago(60), ...notReady(60), ...nowhere, phase: 'Pending' },
  stranded: { createdMs: ago(300), ...notReady(300), ...nowhere, ...words },
  unplaced: { createdMs: ago(4), ...notReady(4), ...nowhere, phase: 'Pending' },
  pending: { ...fresh, phase: 'Pending' },
  starting: fresh,
  stuck: notReady(10 * HOUR),
  unready: notReady(500),
  ready650s: { createdMs: ago(700), readySinceMs: ago(650) },
  justReady: { createdMs: ago(60), readySinceMs: ago(5) },
  at1000: { ...notReady(39), startedMs: ago(40) }, // Not Ready 1,000 ms after its start.
  at1001: { ...notReady(39), startedMs: ago(40) - 1 },
  attaching: { mountedMs: undefined },
  spoke: { lastWords: 'exit code 137' },
  crash: { restarts: 6, isDown: true },
  failed: dead,
  succeeded: { ...dead, phase: 'Succeeded' },
  deleted: going,
  overdue: { deletedMs: ago(31) },
  evicted: { ...going, ...disrupted('EvictionByEvictionAPI') },
  preempted: { ...dead, ...disrupted('PreemptionByScheduler') },
  collected: disrupted('DeletionByPodGC'),
  tainted: disrupted('DeletionByTaintManager', 310),
  taintedNow: disrupted('DeletionByTaintManager', 100),
  announced: note(MARK.returns, 'Recreated'),
  asked: note(MARK.replace, 'true'),
  cheap: note(MARK.deletionCost, '-5'),
  dear: note(MARK.deletionCost, '9'),
  onX: { node: 'n-x' },
  outdated: { labels: { [MARK.revision]: 'older' } },
  orphan: { owners: [] },
  lostLogs: { claims: [`data-web-${id('c')}`, `logs-web-${id('c')}`] },
  foreign: { owners: [OTHER] },
  former: { owners: [FORMER] },
  moved: { labels: { app: 'elsewhere' } },
  unlabelled,
  inPlace: note(MARK.inPlace, `{"revision":"${REVISION}","before":{"m":["1","c:1"]}}`),
  asBefore: { containers: { m: ['1', 'c:2'] } },
  anew: { containers: { m: ['2', 'c:2'] } },
  putBack: { containers: { m: ['1', 'c:1'] } },
  unseen: { isObserved: false },
  resizing: { resize: 'InProgress' },
  infeasible: { resize: 'Infeasible: no room' },
};
const CLAIM: Readonly<Record<string, Flat<op.Claim>>> = {
  going: { deletedMs: NOW },
  lost: { phase: 'Lost' },
  free: { volume: 'pv-free' },
  unbound: { volume: '', phase: 'Pending' },
  sealed: note(MARK.claims, `data-web-${id('c')} logs-web-${id('c')}`),
  unmarked: { annotations: { [MARK.claims]: undefined! } },
  unlabelled,
  restored: note(MARK.restore, 'true'),
  asked: note(MARK.replace, 'true'),
  older: { createdMs: ago(99 * HOUR) },
  anyMark: note(MARK.retired, 'Any'),
  farAway: note(MARK.retiredAt, '+275760-09-13T00:00:00.000Z'),
  wasBound: note(MARK.bindCompleted, 'yes'),
  ours: { owners: [OURS] },
  foreign: { owners: [OTHER] },
  former: { owners: [FORMER] },
};
const NODE: Readonly<Record<string, Flat<op.Node>>> = {
  silent: notReady(400),
  quiet: notReady(100),
  oos: { taints: [{ key: 'node.kubernetes.io/out-of-service', effect: 'NoExecute' }] },
  closed: { taints: [{ key: 'example.com/maintenance', effect: 'NoSchedule' }] },
  pressed: { taints: [{ key: 'node.kubernetes.io/disk-pressure', effect: 'NoSchedule' }] },
  cordoned: { unschedulable: true },
};
const ABSENT: Readonly<Record<string, Flats>> = {
  gone: { pod: null },
  claimAbsent: { claim: null },
  claimless: { claim: null, pod: { claims: [] } },
  nodeless: { node: null },
  spot: { pod: null, claim: null },
};
/** The claims that a member may have: `logs` is a second one, which its pod mounts; `spare` is
 *  that, but not mounted; `stray` is not either, and of no template. */
const CLAIM_NAMES = { claim: 'data', logs: 'logs', spare: 'logs', stray: 'x' } as const;
type Flats = Partial<Record<keyof typeof CLAIM_NAMES | 'pod' | 'node', object | null>>;
/** `PodDeleted@5`: ended 5 s ago, Retain (`!`: Delete); `forPodDeleted`: for `a`; `#1`: index. */
function marked(word: string): Flat<Pod & op.Claim> | undefined {
  const [, reason, age, frees] = /^(\w+)@(\d+)(!?)$/.exec(word) ?? [];
  if (reason) return ended(reason, Number(age), frees ? 'Delete' : 'Retain');
  if (/^for[A-Z]/.test(word)) return note(MARK.replaces, `${ID['a']} ${word.slice(3)}`);
  return word.startsWith('#') ? { labels: { [MARK.index]: word.slice(1) } } : undefined;
}
/** What a word makes of the objects of a member; null: none is there. `logs.lost` is of one. */
function flatsOf(word: string): Flats {
  const [, own, rest = ''] = /^(claim|logs|spare|stray)(?:\.(.*))?$/.exec(word) ?? [];
  if (own) return { [own]: rest === '' ? {} : (marked(rest) ?? explained(CLAIM, rest)) };
  const mark = marked(word);
  if (mark && word.startsWith('#')) return { pod: mark, claim: mark };
  if (mark) return word.includes('@') ? { claim: mark } : { pod: mark };
  if (word === '' || word in ABSENT) return ABSENT[word] ?? {};
  if (word in NODE)
    return { node: NODE[word]!, pod: NODE[word]?.ready === false ? notReady(99) : {} };
  return { pod: explained(POD, word) };
}
const waits = (key: string, seconds: number, message = 'no'): Over => {
  const wait = { times: 1, untilUptime: UPTIME + seconds * 1000, message };
  return { desk: { backoff: new Map([[key, wait]]) } };
};
/** This process saw the last pod of `c` go. */
function saw(words: string, reason?: op.EndReason): Over {
  const flat = { uid: 'before', deletedMs: ago(5) };
  const last = pod('c', flat, ...words.split('+').map((w) => explained(POD, w)));
  return { desk: { went: new Map([[id('c'), { pod: last, reason, atMs: ago(5) }]]) } };
}
/** What is asked about `c`. */
const KEYS: Readonly<Record<string, string>> = {
  pod: `pods/web-${id('c')}`,
  claim: `persistentvolumeclaims/data-web-${id('c')}`,
  node: 'nodes/n-c',
  volume: 'persistentvolumes/pv-c',
  cluster: 'statefulclusters/web',
  heir: `trials/${REVISION} with claims`,
  trial: `trials/${REVISION}`,
};
const answer = (key: string, words: string) => ({ answers: { [explained(KEYS, key)]: words } });
const FULL = ' "x" is forbidden: exceeded quota: few';
const ENTRY = { identity: id('c'), reason: 'PodDeleted', claims: [], replacedBy: id('y') };
const RETIRED: op.RetiredStatus = { ...ENTRY, at: '2026-01-01T00:00:00Z' };
const newest = (letter: string) => ({ status: { replacements: 4, newestIdentity: id(letter) } });
const failedThen = (letter: string, i: number): [string, op.Went] => {
  const last = pod(letter, { claims: i % 2 ? ['shared'] : [] }, dead);
  return [id(letter), { pod: last, reason: 'PodFailed', atMs: ago(i + 1) }];
};
const WHEN: Readonly<Record<string, Over>> = {
  returns: { replacementPolicy: 'WhenVolumesLost' },
  pinned: { pinned: true },
  ordered: { podManagementPolicy: 'OrderedReady' },
  blind: { snap: { nodes: undefined } },
  pvDenied: { snap: { volumesReadable: false } },
  noVolumes: { snap: { nodes: undefined, volumesReadable: false } },
  limits: { unreadySeconds: 300, startupSeconds: 30, maxRestarts: 5 },
  cCalmAt1: { desk: { calm: new Map([[`uid-web-${id('c')}`, 1]]) } },
  cEnded: saw('deleted', 'ReplaceRequested'),
  backSoon: waits(`return/${id('c')}`, 1),
  refused: waits('make/1', 1),
  refusedBefore: waits('make/1', -1),
  no2Gi: waits(`expand/data-web-${id('a')}`, 1),
  updateRefused: waits(`update/web-${id('c')}`, 1),
  badLabels: answer('trial', `${op.ADMISSION}: app`),
  badLabelsBefore: waits(KEYS['trial']!, 1, `${op.ADMISSION}: app`),
  pool: { template: { ...TEMPLATE, spec: { ...TEMPLATE.spec, nodeSelector: { pool: 'x' } } } },
  wasMoved: { desk: { seen: new Map([[`${op.ADMISSION}/uid-web-${id('c')}`, 0]]) } },
  badTrialBefore: waits(KEYS['trial']!, 1, 'bad image'),
  badTrial: answer('trial', 'bad image'),
  noHeir: answer('heir', 'quota'),
  fullPods: answer('heir', `pods${FULL}`),
  fullQuota: answer('trial', `pods${FULL}`),
  fullClaims: answer('trial', `persistentvolumeclaims${FULL}`),
  manyFailed: { desk: { went: new Map([...'vwxyz'].map(failedThen)) } },
  noSelector: { selector: {} },
  noClaims: { volumeClaimTemplates: [] },
  twoTemplates: { volumeClaimTemplates: [gi('1Gi'), gi('1Gi', 'logs')] },
  idle: { meta: note(MARK.paused, 'true') },
  deleting: { meta: { deletedMs: NOW } },
  recreated: { meta: { createdMs: ago(60) } },
  denied: { snap: { denied: 'pods is forbidden' } },
  cInStatus: { status: { retired: [{ ...RETIRED, claims: ['gone'] }] } },
  toldOlder: { status: { currentRevision: 'older' } },
  olderTwo: { older: { claimTemplates: ['data', 'logs'] } },
  newestC: newest('c'),
  newestZ: newest('z'),
};
/** `replicas=2` is a field, `saw.evicted` a pod that was seen to go, `?pod` a question about `c`
 *  that has no answer; any other word is explained by WHEN. */
function overOf(words: string): Over {
  const overs = words.split(' ').map((word): Over => {
    const [field = '', value] = word.split('=');
    if (value !== undefined)
      return { [field]: Number.isNaN(Number(value)) ? value : Number(value) };
    if (word.startsWith('saw.')) return saw(word.slice(4));
    return word.startsWith('?') ? answer(word.slice(1), 'no answer: x') : explained(WHEN, word);
  });
  const all = (field: 'desk' | 'answers' | 'snap') =>
    Object.assign({}, ...overs.map((o) => o[field]));
  const merged = { desk: all('desk'), answers: all('answers'), snap: all('snap') };
  return Object.assign({}, ...overs, merged);
}
type See = (situation: string, over: Over) => unknown;
/** A row goes on in lines that begin with a space. */
const rowsOf = (text: string) => text.trim().replaceAll(/\n +/g, ' ').split('\n');
const rowsIn = (text: TemplateStringsArray, ...inserts: string[]): readonly string[] =>
  rowsOf(String.raw({ raw: text }, ...inserts)).flatMap(eachOf);
/** A row with `<a|b>` is two: the first words of all such lists, and the second ones. */
function eachOf(row: string): readonly string[] {
  const lists = [...row.matchAll(/<([^<>]*\|[^<>]*)>/g)].map(([, words = '']) => words.split('|'));
  const [first = ['']] = lists;
  if (lists.some((list) => list.length !== first.length)) throw new Error(`uneven: ${row}`);
  const nth = (i: number) => (text: string, list: readonly string[]) =>
    text.replace(`<${list.join('|')}>`, () => list[i] ?? '');
  return first.map((_, i) => lists.reduce(nth(i), row));
}
/** One test for each situation of each row of the text that follows. */
const table =
  (room: string, see: See, isPart = false) =>
  (text: TemplateStringsArray, ...inserts: string[]) => {
    const test = suite(room);
    for (const row of rowsIn(text, ...inserts)) {
      const [, why = '', situations = '', wanted = ''] = /^([^→]*):( .*?|) →(.*)$/.exec(row) ?? [];
      for (const one of situations.split('|')) {
        const [, situation = '', words] = /^(.*?)(?:\(([^()]+)\))?$/.exec(one.trim()) ?? [];
        test(`${room}: ${why}: ${one.trim()} →${wanted}`, () => {
          const seen = String(see(situation.trim(), words ? overOf(words) : {}));
          if (!isPart || !seen.includes(wanted.trim())) assert.is(seen, wanted.trim());
        });
      }
    }
    if (TESTING) test.run();
  };
type Same = readonly [name: string, seen: unknown, wanted: unknown];
function facts(room: string, rows: readonly Same[]): void {
  const test = suite(room);
  for (const [name, seen, wanted] of rows) {
    test(`${room}: ${name}`, () => assert.equal(seen, wanted));
  }
  if (TESTING) test.run();
}

// ═══ 2 TOOLS and 3 IDENTITY ═════════════════════════════════════════════════════════════════════

const { canonicalJson: json, revisionHash: hash, scaledValue } = op;
const term = (operator: string, ...values: string[]): boolean =>
  op.termMatches({ key: 'n', operator, values }, { n: '5' });
const transition = (status: 'True' | 'False', type = 'T'): string => {
  const next = { type, status, reason: 'B', message: '' };
  const known = { ...next, type: 'T', status: 'True', lastTransitionTime: 'before' } as const;
  const of = cluster({ status: { conditions: [{ ...known, observedGeneration: 2 }] } });
  return op.setCondition(of, next, NOW).lastTransitionTime;
};
const XY = { key: 'c', operator: 'In', values: ['x', 'y'] };
const PICK = { matchLabels: { b: '2', a: '1' }, matchExpressions: [XY] };
const picked = ['1 2 x', '1 2 z', '1 3 x'].map((text) => {
  const [a = '', b = '', c = ''] = text.split(' ');
  return op.selectorMatches(PICK, { a, b, c });
});
facts('tools', [
  ['json: keys are sorted', json({ b: 1, a: { d: 2, c: 3 } }), '{"a":{"c":3,"d":2},"b":1}'],
  ['json: nulls go, empty ones stay', json({ b: [], a: { x: null } }), '{"a":{},"b":[]}'],
  ['json: lists keep their order', json([2, { z: 1 }, 'x']), '[2,{"z":1},"x"]'],
  ['int or percent', [7, '50%'].map((v) => scaledValue(v, 3, 'down')), [7, 1]],
  ['int or percent, rounded up', [7, '50%', '0%'].map((v) => scaledValue(v, 3, 'up')), [7, 2, 0]],
  ['term: In', [term('In', '4', '5'), term('In', '4')], [true, false]],
  ['term: NotIn', [term('NotIn', '4'), term('NotIn', '5')], [true, false]],
  ['term: Exists', [term('Exists'), term('DoesNotExist')], [true, false]],
  ['term: Gt', [term('Gt', '4'), term('Gt', '10'), term('Gt', '5')], [true, false, false]],
  ['term: Lt', [term('Lt', '10'), term('Lt', '4'), term('Lt', '5')], [true, false, false]],
  ['term: an operator of the future', term('Near', '5'), false],
  ['selector: all hold, a term fails, a pair fails', picked, [true, false, false]],
  ['selector: as text', op.selectorText(PICK), 'a=1,b=2,c in (x,y)'],
  ['quantity', ['1.5Ki', '500m', '1e3', '2E'].map(op.quantity), [1536, 0.5, 1000, 2e18]],
  ['quantity: none', ['big', '', '1Xi'].map(op.quantity), [NaN, NaN, NaN]],
  ['condition: same status → its time stays', transition('True'), 'before'],
  ['condition: other status → now', transition('False'), op.timeText(NOW)],
  ['condition: other type → now', transition('True', 'X'), op.timeText(NOW)],
]);

const drawn = (count: number, known: readonly string[], seed = 1): readonly string[] =>
  op.allocate(count, new Set(known), NOW, chance(seed));
const younger = (count: number, known: readonly string[], seed = 1): boolean =>
  drawn(count, known, seed).every((one) => known.every((other) => one > other));
const NEWEST = idAt(NOW + 1800_000); // Born by a clock that was half an hour ahead.
/** 40 rounds of 700 within one second, as a clock that stands still gives them. */
function crowd(): number {
  const all = new Set<string>();
  for (let seed = 1; seed <= 40; seed++) for (const i of drawn(700, [...all], seed)) all.add(i);
  return all.size;
}
facts('identity', [
  ['the alphabet is in ASCII order', [...op.ALPHABET].sort().join(''), op.ALPHABET],
  ['the first second', idAt(Date.UTC(2020, 0, 1)), '2222222222'],
  ['331 years later', idAt(Date.UTC(2351, 0, 1)).slice(0, 2), 'zx'],
  ['digits: of a clock that has fractions', op.digits(27 + 4.7, 3), '247'],
  ['birth is read back', op.birthMs(idAt(ago(7))), ago(7)],
  ['2,000 in one second → all differ', new Set(drawn(2000, [])).size, 2000],
  ['one second → names sort by age', drawn(50, []), [...drawn(50, [])].sort()],
  ['one second, drawn again → younger than all', younger(500, drawn(500, []), 2), true],
  ['clock set back → younger than the newest', younger(9, [NEWEST]), true],
  ['crowded second → the next', younger(3, [`${NEWEST.slice(0, 7)}zzz`]), true],
  ['crowded again and again → no known id is drawn', crowd(), 28_000],
  ['adopted ordinals are older', ['10', id('a'), '9'].sort(op.byAge), ['9', '10', id('a')]],
  ['adopted ordinals carry no time', drawn(1, ['zzz', '0']), drawn(1, [])],
  ['a vowel → no identity', op.birthSecond('aaaaaaaaaa'), -1],
  ['of a foreign name', op.identityOf(pod('a', { name: 'db-x' }), 'web'), ''],
]);

const NULLS = { metadata: { creationTimestamp: null, name: 'x' }, spec: { a: 1, b: null } };
const LABELLED = { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'm' }] } };
const IMAGE = { spec: { containers: [{ name: 'main', image: 'coder:1', ports: [] }] } };
/** Golden: a version of this program that hashes otherwise restarts every pod of every user. */
facts('revision', [
  ['golden: empty', hash({}, 0), 'dt2mmvndrq'],
  ['golden: an image', hash(IMAGE, 0), '64blbbtswh'],
  ['golden: a collision', hash(IMAGE, 1), 'c2nx9cbrkt'],
  ['golden: labels', hash(LABELLED, 0), 'rhhqdlk7jr'],
  ['key order → same', hash({ spec: { b: 1, a: 2 } }, 0), hash({ spec: { a: 2, b: 1 } }, 0)],
  ['nulls, foreign metadata → same', hash(NULLS, 0), hash({ spec: { a: 1 } }, 0)],
  ['an empty object → other', hash({ spec: { a: {} } }, 0) === hash({ spec: {} }, 0), false],
  ['annotations → other', hash({ metadata: { annotations: {} } }, 0) === hash({}, 0), false],
]);

/** Sorted JSON in which ~x is enge.me/x, A the identity, REV the revision label and R its hash. */
const short = (value: unknown): string =>
  json(value ?? '')
    .replaceAll('enge.me/', '~')
    .replaceAll(id('a'), 'A')
    .replace('apps.kubernetes.io/pod-index', 'INDEX')
    .replace('argocd.argoproj.io/sync-options', 'PRUNE')
    .replace(/controller-revision-hash":"[2-9b-z]{10}"/, 'REV":"R"');
type Tree = { readonly [field: string]: Tree };
const unabridged = (text: string) => text.replaceAll('~', 'enge.me/').replace('REV', MARK.revision);
/** Where `at` leads. */
const shownAt = (tree: object | undefined, { at = '' }: Over): string => {
  const steps = unabridged(String(at)).split('>');
  return short(steps.reduce((at, step) => at?.[step], tree as Tree | undefined));
};
/** … in a body whose template is, or has, what the row says. */
const reads =
  (make: (given: object, over: Over) => object | undefined): See =>
  (given, over) =>
    shownAt(make(JSON.parse(unabridged(given) || '{}') as object, over), over);
const podWith = (template: object, over: Over): op.Body => {
  const one = cluster({ ...over, template });
  return op.podBody(one, bornIn(one), !('nodes' in (over.snap ?? {})));
};
const bornIn = (one: op.StatefulCluster) => {
  const { update: revision } = op.updateRevisionOf(one, new Map());
  return { identity: id('a'), replaces: 'x Lost', index: 4, revision };
};
const metadataOf = reads((meta, over) => podWith({ ...TEMPLATE, metadata: meta }, over).metadata);
const specOf = reads((spec, over) => podWith({ spec }, over)['spec'] as object);
const claimWith = reads((metadata, over) => {
  const volumeClaimTemplates = [{ ...gi('1Gi'), metadata: { name: 'data', ...metadata } }];
  const one = cluster({ ...over, volumeClaimTemplates });
  return op.claimBody(one, bornIn(one), 'data');
});
const REVISION_OF_X = hash({ ...TEMPLATE, metadata: { labels: { [MARK.revision]: 'x' } } }, 0);
table('podBody', metadataOf)`
its name: {"name":"n","generateName":"g"} (at=name) → "web-A"
bare template: (at=labels) →
  {"app":"web","INDEX":"4","REV":"R","~identity":"A","~statefulcluster":"web"}
our labels: {"labels":{"~identity":"x"}} (at=labels>~identity) → "A"
our labels: {"labels":{"REV":"x"}} (at=labels>REV) → "${REVISION_OF_X}"
kept: {"labels":{"x":"1"}} (at=labels>x) | {"annotations":{"x":"1"}} (at=annotations>x) → "1"
dropped: {"labels":{"~x":"1"}} (at=labels>~x) | {"annotations":{"~x":"1"}} (at=annotations>~x) → ""
foreign: {"uid":"x"} (at=uid) | {"finalizers":["x"]} (at=finalizers) → ""
what it replaces: (at=annotations>~replaces) → "x Lost"
its controller: {"ownerReferences":[]} (at=ownerReferences) → ${short([OURS])}
`;
const NODE_KEY = '"key":"node.kubernetes.io/not-ready"';
const NOT_READY = `{"effect":"NoExecute",${NODE_KEY},"operator":"Exists"}`;
const UNREACHABLE = NOT_READY.replace('not-ready', 'unreachable');
const CLAIMED = `"persistentVolumeClaim":{"claimName":"data-web-A"}`;
table('podBody', specOf)`
kept: {"initContainers":[{"name":"x"}]} (at=initContainers) → [{"name":"x"}]
serviceName: (at=<hostname|subdomain> serviceName=svc) → "<web-A|svc>"
absent: (at=hostname) | (at=subdomain) | (at=volumes noClaims) | (at=tolerations blind) → ""
volumes are kept: {"volumes":[{"name":"x"}]} (at=volumes>0>name) → "x"
claims win: {"volumes":[{"name":"data","x":1}]} (at=volumes) → [{"name":"data",${CLAIMED}}]
two tolerations, without a limit: (at=tolerations) → [${NOT_READY},${UNREACHABLE}]
its own, of all effects: {"tolerations":[{<"effect":"NoExecute",|>${NODE_KEY}}]} (at=tolerations)
  → [{<"effect":"NoExecute",|>${NODE_KEY}},${UNREACHABLE}]
its own, of everything: {"tolerations":[{"operator":"Exists"}]} (at=tolerations)
  → [{"operator":"Exists"}]
others: {"tolerations":[{"effect":"<NoSchedule|PreferNoSchedule>",${NODE_KEY}}]} (at=tolerations)
  → [{"effect":"<NoSchedule|PreferNoSchedule>",${NODE_KEY}},${NOT_READY},${UNREACHABLE}]
`;
table('claimBody', claimWith)`
its name: (at=metadata>name) → "data-web-A"
none of the selector: (at=metadata>labels) → {"INDEX":"4","~identity":"A","~statefulcluster":"web"}
its marks: (at=metadata>annotations) → {"PRUNE":"Prune=false","~claims":"","~replaces":"x Lost"}
our labels: {"labels":{"~identity":"x"}} (at=metadata>labels>~identity) → "A"
dropped: {"<labels|annotations>":{"~retired":"x"}} (at=metadata><labels|annotations>>~retired) → ""
kept: {"labels":{"x":"1"}} (at=metadata>labels>x) → "1"
what it replaces: (at=metadata>annotations>~replaces) → "x Lost"
its owner: (at=metadata>ownerReferences) → ""
whenDeleted: (at=metadata>ownerReferences whenDeleted=Delete) → ${short([OURS])}
its spec: (at=spec>resources>requests>storage) → "1Gi"
`;
/** Which claims of the situation are those of their identity, by a template `data`. */
const oursOf: See = (situation) => {
  const { pods, claims, cluster: one } = snapshot(situation);
  const isOurs = (c: op.Claim): boolean =>
    op.isOurClaim(c, one, ['data'], pods.get(`web-${c.meta.labels[MARK.identity]}`));
  const ours = [...claims.values()].filter(isOurs);
  return ours.map((c) => plain(c.meta.name)).join(' ');
};
table('whose claim', oursOf)`
F37: made by the operator, owned by this cluster: a | a:gone | a:claim.ours → a
F37: mounted by its pod, of no template: a:logs | a:logs+stray → logs-a a
F37: of no template, unmounted: a:stray.PodDeleted@9! | a:gone+stray.PodDeleted@9+stray.restored → a
F37: without the mark of its maker: a:claim.unmarked | a:claim.unmarked+PodDeleted@9! →
the door: retired and to be restored: a:gone+claim.unmarked+Any@9+claim.restored → a
… of a controller: a:claim.unmarked+Any@9+claim.restored+claim.foreign →
… of this one, which never made it: a:claim.unmarked+Any@9+claim.restored+claim.ours →
of another controller, a former cluster: a:claim.foreign | a:claim.former | a:claim.unlabelled →
`;
/** Does `web` or `x-web`, of this template, see `data-x-web-…` with the label of that cluster? */
const seenBy: See = (situation) => {
  const [name = '', template = '', label = ''] = situation.split(' ');
  const own = claim('a', { name: `data-x-web-${id('a')}`, labels: { [MARK.cluster]: label } });
  return op.isOurClaim(own, cluster({ meta: { name, uid: name } }), [template], undefined);
};
table('whose claim', seenBy)`
F38: names coincide, its own: web data-x web | x-web data x-web → true
F38: names coincide, the other's: web data-x x-web | x-web data web → false
`;
const neverBound: See = (situation) =>
  [...snapshot(situation).claims.values()].map(op.isNeverBound).join();
table('never bound', neverBound)`
made for a birth, no volume yet: a:claim.unbound → true
bound, was bound, sealed, of others: a | a:claim.unbound+claim.wasBound
  | a:claim.unbound+claim.sealed | a:claim.unbound+claim.unmarked → false
`;

// ═══ 4 HEALTH ═══════════════════════════════════════════════════════════════════════════════════

const lasted = (since: number | undefined, ...watched: number[]): readonly number[] =>
  watched.map((seconds) => op.lastedMs(since, seconds * 1000, NOW) / 1000);
facts('lastedMs', [
  ['old stamp: as watched, up to 60 s; then the stamp', lasted(ago(500), 0, 59, 60), [0, 59, 500]],
  ['young stamp: the stamp, up to 60 s; then as watched', lasted(ago(5), 59, 60), [5, 60]],
  ['no stamp: as watched', lasted(undefined, 30, 90), [30, 90]],
  ['a stamp from the future: 0, then as watched', lasted(NOW + 9000, 20, 60), [0, 60]],
]);

const memberC = ({ p }: Decided) => p.members.find((m) => m.identity === id('c'));
/** What ends `c`, and in how many seconds; else its state. */
function endOf(text: string, over: Over): string {
  const m = memberC(decide(text, over));
  if (!m?.end)
    return m?.life === 'live' ? m.state.replace('Returning', '-') : `over ${m?.retired?.reason}`;
  const { reason, dueInMs } = m.end;
  const braked = m.end.kind === 'judgement' ? '*' : '';
  return `${reason}${braked}${dueInMs > 0 ? ` ${dueInMs / 1000}` : ''}`;
}
const COLUMNS = ['', 'pinned', 'returns', 'returns pinned', 'claimless', 'blind'] as const;
const cellAt = (cells: readonly string[], i: number): string => {
  const cell = cells[i] ?? '"';
  return cell === '"' ? cellAt(cells, i - 1) : cell === '^' ? cellAt(cells, i - 2) : cell;
};
/** The table of DESIGN.md, section 5. Columns: volumes that can follow, pinned ones, both of them
 *  under WhenVolumesLost, no claims, nodes that cannot be read. `"` or nothing is as in the column
 *  before, `^` as two before. `-` returns; `*` is judged; a number: in so many seconds. */
function fates(rows: string): void {
  const all = rowsOf(rows).flatMap((row) => {
    const [, why = '', situations = '', text = ''] = /^(.*?): (.*) → (.*)$/.exec(row) ?? [];
    return COLUMNS.flatMap((column, i) => {
      const isBare = column === 'claimless';
      return situations.split(' | ').flatMap((one) => {
        const [, states = '', when = ''] = /^(\S+)(?: \((.*)\))?$/.exec(one) ?? [];
        if (isBare && /gone|claim/.test(states)) return [];
        const words = `${isBare ? '' : column} ${when}`.trim();
        const situation = `a b c:${states}${isBare ? '+claimless' : ''}${words && ` (${words})`}`;
        return [`${why}: ${situation} → ${cellAt(text.split(' | '), i)}`];
      });
    });
  });
  table('endOf', endOf)`${all.join('\n')}`;
}
fates(`
taken out of the selector, before all else: moved | moved+asked+pending+silent → Released
asked, by its claim, without a pod: asked+silent+pending | gone+claim.asked
  | gone+claim.asked (suspend=1) → ReplaceRequested
its claim goes, it does not run: pending+claim.going+silent | failed+claim.going+cordoned
  | evicted+claim.going | gone+claim.going → ClaimGone
… its node is gone: claim.going+nodeless → ClaimGone | " | " | " | " | Available
its claim is absent, another's, one that its seal names: pending+claimAbsent
  | pending+claim.foreign | gone+claim.sealed (twoTemplates) → ClaimGone
it runs: claim.going | claimAbsent | claim.lost | oos | cordoned → Available
deleted by hand, as seen to go, a stopping pod reads as failed: deleted | gone (saw.deleted)
  | failed+deleted → PodDeleted | " | - | " | over PodDeleted | PodDeleted
… disrupted then: evicted (was=deleted) → PodDeleted | " | - | " | over PodEvicted | PodDeleted
by us, as seen to go: deleted+announced | gone (saw.announced) → - | " | " | " | over Updated | -
evicted, as seen to go, vanished unseen: evicted | gone (saw.evicted) | gone
  → - | " | " | " | over PodEvicted | -
failed, succeeded: failed | succeeded → - | " | " | " | PodFailed | -
preempted, under pressure: preempted → - | " | " | " | PodEvicted | -
out of service, it goes: deleted+oos → - | NodeOutOfService | ^ | ^ | over PodDeleted | PodDeleted
… it ended, no pod: failed+oos | gone+oos → - | NodeOutOfService | ^ | ^ | PodFailed | -
silent, from 60 s of watching on by its own time: silent | silent (watched=60)
  → NodeUnreachable* | " | " | " | " | Unready
… it goes: deleted+silent → NodeUnreachable* | " | " | " | over PodDeleted | PodDeleted
… not for long: quiet (watched=100) → NodeUnreachable* 200 | " | " | " | " | Unready
… watched 59 s: silent (watched=59) → NodeUnreachable* 241 | " | " | " | " | Unready
… it ended, no pod: failed+silent | gone+silent → - | NodeUnreachable* | ^ | ^ | PodFailed | -
the taint manager, blind: tainted → Available | " | " | " | " | NodeUnreachable*
… not for long: taintedNow (watched=100) → Available | " | " | " | " | NodeUnreachable* 200
gone, its pod is there: nodeless → Available | NodeGone* | ^ | ^ | Available
gone, no pod: gone+nodeless → - | NodeGone* | ^ | ^ | " | -
… not for long: gone+nodeless (watched=29) → - | NodeGone* 1 | ^ | ^ | " | -
… no node takes its next pod: unscheduled+nodeless → Pending | NodeGone* | ^ | ^ | Pending
… as the scheduler chose: gone+claim.unbound+nodeless → NodeGone* | " | " | " | " | -
cordoned, drained: evicted+cordoned → - | PodEvicted* | - | " | over PodEvicted | -
… deleted by hand: deleted+cordoned → - | PodEvicted* | - | " | over PodDeleted | PodDeleted
… failed: failed+cordoned → - | PodEvicted* | - | " | PodFailed | -
… announced, no pod: deleted+announced+cordoned (watched=50) | gone+cordoned (watched=50)
  → - | PodEvicted* 10 | - | " | over Updated | -
a taint of somebody: evicted+closed (watched=50) → - | PodEvicted* 10 | - | " | over PodEvicted | -
a taint of Kubernetes, no pod: evicted+pressed | gone+pressed → - | " | " | " | over PodEvicted | -
claim lost: pending+claim.lost → VolumeLost*
… not for long: gone+claim.lost (watched=59) → VolumeLost* 1
was Ready: unready+crash (unreadySeconds=300) → Unready*
… not for long: unready (unreadySeconds=900) → Unready* 300
never Ready: starting (startupSeconds=30) → StartupTimeout*
crashes: at1000+crash (maxRestarts=5) → CrashLoop*
its volume is being attached, no more crashes than allowed, none since it was calm:
  starting+attaching (startupSeconds=30) | at1000+crash (maxRestarts=6)
  | at1000+crash (maxRestarts=5 cCalmAt1) → Starting
no node yet: unplaced (startupSeconds=1) → Pending
was Ready once, at first sight, or no limits: at1001+crash (maxRestarts=1) | unready+crash → Unready
merely starting: stuck (unreadySeconds=1) → Starting
being changed in place: inPlace+asBefore+unready (limits) → Updating
volumes and nodes cannot be read, pod GC: gone (noVolumes saw.collected watched=29) → NodeGone* 1
suspended: deleted+silent (suspend=1) → Suspended | " | " | " | over PodDeleted | Suspended
`);
table('endOf', endOf)`
its volume may not be read: a b c:gone+nodeless (pvDenied) → NodeGone*
… its last pod was elsewhere: a b c:gone+nodeless (pvDenied saw.onX+evicted) → -
… its next pod has none yet: a b c:unscheduled+nodeless (pvDenied<| saw.onX+evicted>) → Pending
no other node is open: a:cordoned b:cordoned c:gone+cordoned !x:spot+cordoned (pinned)
  | a:silent b:silent c:gone+nodeless !x:spot+silent (pinned) → -
… of its pool: a:cordoned b c:gone+cordoned (pinned pool) → -
… out of service: a:silent b:silent c:gone+oos !x:spot+silent (pinned) → NodeOutOfService
its volume is unknown: a b c:gone+nodeless (pinned ?volume) → -
labels that admission changes, or has changed, are no release, nor before that is known:
  a b c:moved (wasMoved) | a b c:moved (badLabels) | a b c:moved (badLabelsBefore)
  | a b c:moved (?trial) | a b c:moved (badTrial) | a b c:moved (fullQuota) → Available
only one of two is pinned: a b c:gone+logs.free+nodeless (pinned) → NodeGone*
claimless, taken out: a b c:claimless+moved → Released
`;
/** Each word of STATES. */
table('stateOf', (situation, over) => memberC(decide(situation, over))?.state)`
no node yet: a b c:unscheduled → Pending
never Ready: a b c:starting | a b c:stuck | a b c:at1000 → Starting
minReadySeconds: a b c:justReady (minReadySeconds=6) → Ready
minReadySeconds: a b c:justReady (minReadySeconds=5) | a b c → Available
was Ready, by the time of its transition: a b c:unready | a b c:at1001 → Unready
in place: a b c:inPlace+asBefore | a b c:inPlace+anew+unseen → Updating
… done, put back by admission: a b c:inPlace+anew | a b c:inPlace+putBack → Available
braked, without a successor: a b:silent c:silent | a b c:silent (noHeir) → Withheld
… one has lost its owner (seeds 38783, 44803): a b:silent+orphan c:silent
  | a b:silent+orphan+deleted c:silent → Withheld
between two pods: a b c:gone | a b c:failed | a b c:evicted → Returning
suspended: a b c:gone (suspend=1) | a b c:deleted+announced (suspend=1) → Suspended
over: a b !c:ScaledIn@30 | a b !c:claimless+deleted → Retiring
`;

// ═══ 5 PLAN ═════════════════════════════════════════════════════════════════════════════════════

const actions: See = (situation, over) => planText(decide(situation, over).p);
table('plan: ends', actions)`
nobody there: (replicas=3) → 3 × new ScaledOut
all there, merely starting: a b c | a b:starting c:stuck → nothing
F32: it ended by itself, its object goes first: a b c:failed | a b c:succeeded → recreate c Returned
F32: evicted, vanished, all at once: a:gone b:gone c:gone → back a; back b; back c
out of service: a:deleted+oos b:deleted+oos (pinned)
  → lose a NodeOutOfService; lose b NodeOutOfService
whenLost: a b c:deleted (whenLost=Delete) → lose c PodDeleted Delete
a former cluster's are kept: a b c:gone+claim.going (whenLost=Delete recreated) → lose c ClaimGone
F21: … not with a pod: a b c:pending+claim.going (whenLost=Delete recreated)
  → replace c ClaimGone Delete
its pod first, let go of: a b !c:deleted+PodDeleted@30! | a b !c:Released@30+orphan → nothing
an end of an earlier pass: a:PodDeleted@5+gone b c → new PodDeleted for a
… has its successor, is old: b y:forPodDeleted !a:gone+PodDeleted@5 | b c !a:gone+PodDeleted@900
  → nothing
… was scaled in, released: a b (replicas=3 cEnded) → new ReplaceRequested for c
… was scaled in: a b c:gone+ScaledIn@30 | a b c:gone+Released@30 → new ScaledOut
I1: a late pod of one that is over: a b !c:ScaledIn@30 | a b !c:failed+ScaledIn@30 → end c ScaledIn
… that its user took out: a b !c:Released@30 → release c Released
half marked, the oldest says: a b !c:logs+PodDeleted@5 → retire logs-c PodDeleted; end c PodDeleted
… a mark on another counts for nothing: a b c:logs.PodDeleted@30 → seal c Sealed; seal logs-c Sealed
… all are marked: a b !c:gone+PodDeleted@30!+logs.PodDeleted@30 → free c PodDeleted
… a retired one is to be restored: a b !c:gone+PodDeleted@5+logs+claim.restored → nothing
what it does not mount ends with it: a b c:deleted+spare (twoTemplates)
  → lose c PodDeleted; retire logs-c PodDeleted
replace and restore are taken off: a b c:claim.asked → replace c ReplaceRequested
no claims: a b c:claimless+failed → end c PodFailed; new PodFailed for c
no claims: a b c:claimless+preempted → end c PodEvicted; new PodEvicted for c
no claims, it goes: a b c:claimless+deleted → new PodDeleted for c
taken out: a b c:moved (whenLost=Delete) → retire c Released; release c Released; new ScaledOut
F21: deleted by hand, all at once: a:deleted b:deleted c:deleted
  → lose a PodDeleted; lose b PodDeleted; lose c PodDeleted
<idle|being deleted>: a:deleted b:moved (<idle|deleting>) | a (replicas=9 <idle|deleting>) → nothing
stalled: a:deleted (replicas=2 noSelector) | a:deleted (replicas=2 denied) → stalled
suspended, nobody is born or judged: a b:gone c:gone+claim.lost (replicas=5 suspend=1)
  → recreate a Suspended
`;
table('plan: brake', actions)`
4 and 3 of 5: a:silent b:silent c:silent d:silent e | a:silent b:silent c:silent d e → withheld
2 of 5, 40%: a:silent b:silent c d e | a:silent b:silent c d e (maxReplacements=40%)
  → replace a NodeUnreachable; replace b NodeUnreachable
1 of 2, the only copy by wish: a:silent b | a:silent (maxReplacements=1) → replace a NodeUnreachable
I10: the only copy: a:silent → withheld
all judged count: a:silent b:gone+nodeless c:gone+claim.lost d e (pinned) → back b; back c; withheld
limits: a b c:silent (maxReplacements=0) | a:silent b:silent c d e (maxReplacements=39%) → withheld
out: not due yet, on a silent node: a:silent b:quiet c → withheld
out: on a node that is gone: a:silent b:nodeless c → withheld
out: looks for a node, its volume is on such a one: a:silent b:unplaced+quiet c (pinned) → withheld
out: no pod, only on such a node: a:silent b:gone+quiet c (pinned watched=100) → back b; withheld
… that can follow: a:silent b:gone+nodeless c → replace a NodeUnreachable; back b
out: a place not filled: b:silent c !a:gone+NodeGone@90 (replicas=3) → new NodeGone for a; withheld
… of another end: b:silent c !a:gone+PodDeleted@5 (replicas=3)
  → replace b NodeUnreachable; new PodDeleted for a
out: its successor was never Ready: b:silent c y:starting+forNodeUnreachable → withheld
out: its successor has no pod yet: b:silent c y:gone+claim.unbound+claim.forNodeUnreachable
  → y NodeUnreachable for a; withheld
… is Ready, was, is of another end: b:silent c y:forNodeUnreachable
  | b:silent c y:forNodeUnreachable+unready | b:silent c y:starting+forPodDeleted
  → replace b NodeUnreachable
no claims, evicted, the only one: a:claimless+preempted → end a PodEvicted; new PodEvicted for a
each counts once: a b c:silent+starting+forNodeUnreachable → replace c NodeUnreachable
F22: a drain of all: a:evicted+cordoned b:evicted+cordoned c:evicted+cordoned (pinned) → withheld
wills go on: a:silent b:silent c:deleted → lose c PodDeleted; withheld
asked goes on: a:silent b:silent+asked c:silent d → replace b ReplaceRequested; withheld
never bound, no brake: a:silent b:silent c:pending+claim.unbound+silent
  → replace c NodeUnreachable; withheld
F35: no successor can be made: a b c:silent (noHeir) → withheld
… what is made is refused: a b c:silent (refused) → waits; withheld
… but a full quota of pods is none: a b c:silent (fullPods) → replace c NodeUnreachable
… counts where no pod of it does: a b c:gone+claim.lost (fullPods) → back c; withheld
… nor one that ended: a b c:failed+cordoned (pinned fullPods) → withheld
new members end early: a b c:silent !y:gone+CrashLoop@5 !z:gone+CrashLoop@90 → withheld
I6: after 10 min a successor without a pod is not waited for: b:silent c
  d:gone+claim.unbound+claim.forNodeUnreachable → replace b NodeUnreachable; d NodeUnreachable for a
`;
table('plan: requests', actions)`
one at a time, 33% of 3: a:asked b:asked c:asked | a:asked b c:asked (maxUnavailable=33%)
  → replace a ReplaceRequested
who is not Available costs nothing: a:asked+unready b:unready c
  | a:asked+justReady b:unready c (minReadySeconds=9) → replace a ReplaceRequested
… two: a:asked b:asked (maxUnavailable=2) → replace a ReplaceRequested; replace b ReplaceRequested
budget spent: a:asked b:unready c → nothing
whenReplaced: a:asked b (whenReplaced=Delete) → replace a ReplaceRequested Delete
of another user's claim: a b c:stray → nothing
suspended: a:gone b:gone+claim.asked (suspend=1) → retire b ReplaceRequested
`;
/** A pod to make: the first one of a birth, or the next of a member that returns. */
table('plan: returns', actions)`
F1: a birth cut short: a b z:gone+claim.unbound → z ScaledOut
… names whom it replaces: b c z:gone+claim.unbound+claim.forPodDeleted → z PodDeleted for a
by its own claims, after an update: a b c:gone (saw.announced) → again c
not yet, it came back just now: a b c:gone (backSoon) → nothing
refused: a b c:gone (refused) → waits
its object is there: a b c:evicted | a b c:deleted+announced → nothing
a claim template was added: a b c:gone (twoTemplates) → back c
F17: a former cluster's pod is in its place: a b c:former → nothing
F17: … a claim that its seal names: a b c:gone+claim.sealed+spare.sealed+spare.former
  (twoTemplates) → nothing
F17: what a former cluster left holds the place: a b !c:former (replicas=3)
  | a b !c:former+claim.former (replicas=3) | a b !c:former+claim.former+claim.going (replicas=3)
  | a b !c:orphan+claim.former (replicas=3) → nothing
F17: … not once garbage collection takes its claims: a b !c:orphan+claim.former+claim.going
  (replicas=3) → new ScaledOut
F10: a foreign pod is in its place: a b c:foreign → blocked
F10: … of one that never had data: a b c:foreign+claim.unbound → lose c NameTaken
I8: another controller has a claim of it: a b c:gone+logs.foreign (twoTemplates) → blocked
its orphan went the wrong way: a b c:orphan+moved → blocked
no judged member: a b c:failed+silent (pinned maxReplacements=0) → withheld
I10: replicas is what returns: a:gone b:gone (replicas=5) → back a; back b; 3 × new ScaledOut
`;
/** An answer that does not come: the member is left alone, and all others go on. */
table('plan: no answer', actions)`
its pod: a b:deleted c:silent d (?pod) → lose b PodDeleted
F3: its node, cordoned by now, its volume, its claim, the cluster, its pod, before it is freed:
  a b:gone c:silent (?node) | a b:gone c:deleted (?node) | a b:gone c:gone (pinned ?volume)
  | a b:gone c:pending+claimAbsent (?claim) | a b:gone c:deleted (?cluster)
  | a b:gone !c:gone+PodDeleted@30! (?pod) → back b
its trial: a b:gone c:silent d (?heir) → back b; withheld
the trial of an update: a:outdated b c:gone (?trial) → back c
an update: a b c:outdated d:outdated (?pod maxUnavailable=2) → recreate d Recreated
`;
/** Each row: `a`, the oldest, goes for one criterion, although `b` has the next one. */
table('plan: ScaledIn', actions)`
F37: without claims, where others have some, first: a:gone b !c:claimless+dear → end c ScaledIn
withheld before never bound: a:silent !b:pending+claim.unbound → over a ScaledIn; withheld
never bound before never Ready: a:pending+claim.unbound !b:starting+forPodDeleted → over a ScaledIn
never Ready before no pod: a:starting+forPodDeleted !b:gone → over a ScaledIn
no pod before not Available: a:gone !b:justReady (minReadySeconds=9) → retire a ScaledIn
not Ready before Ready: a:unready !b:justReady (minReadySeconds=9) → over a ScaledIn
not Available before cheap: a:justReady !b:cheap (minReadySeconds=9) → over a ScaledIn
cheap before outdated: a:cheap !b:outdated → over a ScaledIn
outdated before crowded: a:outdated b:onX !c:onX → over a ScaledIn
crowded before young: a:onX b:onX !c → over b ScaledIn
youngest, all at once: b !c !a → over c ScaledIn; over b ScaledIn
merely starting is never Ready before: a:starting !b → over a ScaledIn
I5: to be replaced is not judged: a b:asked c:starting !d:starting+forPodDeleted → over d ScaledIn
whenScaled: a !b (whenScaled=Delete) → over b ScaledIn Delete
to none: !a → over a ScaledIn
in excess, and lost: a b !c:deleted → retire c PodDeleted
suspended: a:gone !b:gone (suspend=1) → retire b ScaledIn
no wish, no end: a !b (?cluster) → nothing
`;
table('plan: OrderedReady', actions)`
one birth: (ordered replicas=3) → new ScaledOut
waits no more: a:stuck (ordered replicas=3) | a:unready (ordered replicas=3) → new ScaledOut
waits: a:starting (ordered replicas=3) | a:justReady (ordered replicas=3 minReadySeconds=9)
  | a:ready650s (ordered replicas=3 minReadySeconds=900) → nothing
nor for an update that cannot end: a:inPlace+asBefore+infeasible (ordered replicas=2)
  → new ScaledOut; blocked
for a birth that was cut short: a z:gone+claim.unbound (ordered replicas=4) → z ScaledOut
not for a withheld one: a b:silent c:silent (ordered replicas=4) → new ScaledOut; withheld
not for one whose nodes are closed: a:gone+cordoned b (ordered replicas=3 pinned watched=9)
  → back a; new ScaledOut
one ending: a !b !c (ordered) → over c ScaledIn
waits for one that leaves: a !b !c:deleted+ScaledIn@30 (ordered) → nothing
… its grace and 30 s: a !b !c:overdue+ScaledIn@30 (ordered) → over b ScaledIn
two lost: a b:deleted c:deleted (ordered) → retire b PodDeleted; lose c PodDeleted
returns are parallel: a:starting b:gone c:gone (ordered) → back b; back c
`;
const anew = (...letters: readonly string[]): string =>
  letters.map((letter) => `recreate ${letter} Recreated`).join('; ');
const surge = 'podUpdatePolicy=Replace maxSurge=1 maxUnavailable=0';
table('plan: updates', actions)`
one at a time, the youngest: a:outdated b:outdated c:outdated → ${anew('c')}
two at a time: a b:outdated c:outdated (maxUnavailable=2) → ${anew('c', 'b')}
budget is spent: a:outdated b c:starting | a:outdated b c:unready | a:outdated b c:evicted → nothing
F29: not Ready, so free, and first: a:outdated b:outdated+starting c
  | a b:outdated+unready c:outdated d e → ${anew('b')}
and budget: a b:outdated+unready c:outdated d (maxUnavailable=2) → ${anew('b', 'c')}
its node is silent: a b c:outdated+quiet (watched=100) → nothing
withheld for its node: a:outdated b:outdated+silent c:outdated+silent → withheld
withheld for its pod, healed: a b:outdated+unready c:outdated+unready (unreadySeconds=9)
  → ${anew('c', 'b')}; withheld
lost: a b c:outdated+deleted → lose c PodDeleted
announced, then a crash: a b c:outdated+announced → end c Recreated
partition: a:outdated b:outdated c:outdated (partition=3) → nothing
partition, rounded up: a:outdated b:outdated c:outdated (partition=<2|34%>) → ${anew('c')}
partition, by age: a b:outdated c (partition=1)
  | a b:outdated !v:gone+PodDeleted@5 c (partition=1) → ${anew('b')}
… as one goes: a:deleted b c:outdated (partition=2 maxUnavailable=2) → lose a PodDeleted
partition, rounded up: a:outdated b:outdated c (partition=34%) → nothing
paused: a:outdated b c (paused=1) | a:outdated b c (idle) → nothing
not tried: a:outdated b c (badTrial) | a:outdated b c (badTrialBefore) → blocked
a full quota of pods: a:outdated b c (fullQuota from=args) → ${anew('a')}
of claims, of pods if larger: a c:outdated (fullClaims) | a c:outdated (fullQuota)
  | a b:outdated c:outdated+logs+claim.sealed+logs.sealed (twoTemplates noHeir maxUnavailable=2)
  → blocked
scale-in goes first: a:outdated b c !d → over a ScaledIn
ordered waits: a:outdated b:starting c d (ordered maxUnavailable=3) → nothing
ordered, one: a b:outdated c:outdated+starting (ordered) → ${anew('c')}
no claims: a b c:outdated+claimless (noClaims) → recreate c Updated
could not come back: a b c:outdated+cordoned (pinned) | a b c:outdated+starting+cordoned → blocked
could: a b c:outdated+cordoned → ${anew('c')}
leaves, its claim goes: a c:outdated+deleted+announced | a c:outdated+claim.going → nothing
InPlaceOnly: a b c:outdated (podUpdatePolicy=InPlaceOnly) → blocked
Replace: a b c:outdated (podUpdatePolicy=Replace<| whenReplaced=Delete>) → over c Updated<| Delete>
Replace, the place is filled: a b !c:gone+Updated@5 (podUpdatePolicy=Replace replicas=3)
  → new Updated for c
Replace, one under way: a b:outdated c:starting (podUpdatePolicy=Replace) → nothing
surge first: a:outdated b:outdated c:outdated (${surge}) → new Updated
… then the old: a:outdated b:outdated c:outdated !d (${surge}) → over c Updated
… one at a time: a:outdated b:outdated c:outdated !d:starting (${surge}) → nothing
… names nobody: a:outdated b:outdated d !c:gone+Updated@5 (${surge}) → new Updated
surge is over: a b c !d (${surge}) → over d ScaledIn
… is paused: a:outdated b:outdated c:outdated !d (${surge} paused=1) → over c ScaledIn
new members while the partition lasts: a:outdated b (replicas=3 partition=2) → new ScaledOut
`;
const next: See = (situation, over) =>
  decide(situation, over)
    .p.actions.flatMap((a) =>
      a.do === 'Make' ? [a.revision.hash === REVISION ? 'new' : 'old'] : [],
    )
    .join(' ');
/** The revision of the pods that are made: by age rank, and by what the update waits for. */
table('plan: partition', next)`
returns at its place: a:gone b:outdated c (partition=1) | a b:outdated c:gone (partition=3) → old
returns beyond it, OnDelete, none is shown: a:outdated b c:gone (partition=2) | a:outdated b c:gone
  | a:outdated b:gone (updates=OnDelete) | a:gone (partition=1) → new
births within it, beyond it: a:outdated (replicas=4 partition=3) → old old new
paused, refused: a:outdated b:gone (paused=1) | a:outdated b:gone (badTrialBefore) → old
no pod shows one, the status does: a:gone b:gone (partition=1 toldOlder) → old new
… whom a claim template that is gone never reached: a:gone b:gone (paused=1 toldOlder olderTwo)
  → new new
`;
table('plan: comebacks', actions)`
announced, no longer outdated: a b c:announced → relabel c Revised
stopped: a b c:failed+deleted+announced | a b c:succeeded+deleted+announced → nothing
asked: a b c:deleted+announced+asked → lose c ReplaceRequested
its node is silent: a b c:deleted+announced+silent → lose c NodeUnreachable
its node is silent, not for long: a b c:deleted+announced+quiet (watched=100) → nothing
suspend: a b c:deleted+announced (suspend=1) → recreate b Suspended; recreate a Suspended
suspend, one at a time: a b (suspend=1 ordered) → recreate b Suspended
… not for one that never goes: a b c:overdue+announced (ordered suspend=1) → recreate b Suspended
suspend, its claim is being deleted: a b:claim.going (suspend=1) → recreate a Suspended
suspend, no claims: a:claimless (noClaims suspend=1) → recreate a Suspended
suspended: a:gone b:gone (suspend=1) | a:gone (suspend=1 replicas=2) → nothing
`;
table('plan: restores', actions)`
F42: room: a b !c:gone+ScaledIn@30+claim.restored (replicas=3) → restore c Restored
no room: a b !c:gone+ScaledIn@30+claim.restored → nothing
its pod is there: a b !c:deleted+ScaledIn@30+claim.restored (replicas=3) → new ScaledOut
its pod may be there: a b !c:gone+ScaledIn@30+claim.restored (replicas=3 ?pod) → nothing
one claim goes, is lost: a b !c:gone+ScaledIn@30+claim.restored+claim.going (replicas=3)
  | a b !c:gone+ScaledIn@30+claim.restored+claim.sealed (replicas=3 twoTemplates) → new ScaledOut
… of a template that is gone: a b !c:gone+ScaledIn@30+claim.restored+claim.sealed (replicas=3)
  → restore c Restored
of one to be freed: a b !c:gone+PodDeleted@30!+claim.restored → nothing
two claims, the wish is spread first: a b !c:gone+logs.PodDeleted@30+PodDeleted@5+claim.restored
  (replicas=3 twoTemplates) → wish logs-c
… then both lose their marks: a b
  !c:gone+logs.PodDeleted@30+PodDeleted@5+claim.restored+logs.restored (replicas=3 twoTemplates)
  → restore logs-c Restored; restore c Restored
… half done is finished: a b !c:gone+logs+PodDeleted@5+claim.restored (replicas=3 twoTemplates)
  → restore c Restored
… which of two: a b !v:gone+ScaledIn@30+claim.restored !c:gone+ScaledIn@30+claim.restored
  (replicas=3) → restore c Restored
before births: a !c:gone+ScaledIn@30+claim.restored (replicas=3) → restore c Restored; new ScaledOut
suspended: a:gone !c:gone+ScaledIn@30+claim.restored (replicas=2 suspend=1) → restore c Restored
a second old: a b !z:gone+ScaledIn@30+claim.restored (replicas=3) → restore z Restored
lost again: b c !a:gone+PodDeleted@5 y:forPodDeleted (replicas=4) → new PodDeleted for a
of others: a b !c:gone+claim.unmarked+Whatever@30+claim.restored (replicas=3) → restore c Restored
… means nothing unretired: a b c:claim.restored → nothing
`;
table('plan: in place', actions)`
under way: a b c:outdated+inPlace+asBefore (from=image)
  | a b c:outdated+inPlace+anew+unready (from=image) → nothing
not seen by the kubelet, not resized: a c:inPlace+anew+unseen | a c:inPlace+anew+resizing → nothing
done: a b c:outdated+inPlace+anew (from=image) → relabel c Revised
F33: admission put the image back, that is done: a b c:outdated+inPlace+putBack (from=image)
  → relabel c Revised
it costs the budget: a:outdated b c:inPlace+asBefore → nothing
image, size, both: a b c:outdated (from=image) | a b c:outdated (from=size) → update c Updated
arguments, an annotation restarts, refused before: a b c:outdated (from=<args|annotation|both>)
  | a b c:outdated (from=image <podUpdatePolicy=Recreate|updateRefused|updateRefused>)
  → ${anew('c')}
… not under InPlaceOnly: a b c:outdated (from=<annotation|both> podUpdatePolicy=InPlaceOnly)
  → update c Updated
only labels, one at a time as well: admission may change the image (seeds 12556, 13297, 20858):
  a:outdated b:outdated c:outdated (from=label) → update c Updated
nothing differs but defaults, under OnDelete: a b c:outdated (from=same)
  | a b c:outdated (from=bare updates=OnDelete) → update c Revised
OnDelete: a:outdated b c (updates=OnDelete) | a:outdated (from=label updates=OnDelete) → nothing
no room for its size: a b c:inPlace+infeasible+anew → blocked
`;
const leaves: See = (text) =>
  [...op.leavesOf({ containers: JSON.parse(text) as object })]
    .map(([path, value]) => `${path}=${json(value)}`)
    .join(' ');
table('leavesOf', leaves)`
order, but not of volumes: [{"name":"m","v":[{"name":"x"}],"env":null,"args":[]},{"name":"b"}]
  → containers="m,b" containers.m.name="m" containers.m.v.x.name="x" containers.m.env=null
  containers.b.name="b"
without names, it is whole: [{"name":"m"},{"x":1}] → containers="[{\\"name\\":\\"m\\"},{\\"x\\":1}]"
`;
table('plan: claims', actions)`
larger: a (request=2Gi) → expand a 2Gi
larger, withheld: a:silent (request=2Gi) → expand a 2Gi; withheld
larger, retired: b !a:gone+ScaledIn@30 (request=2Gi) → expand b 2Gi
unbound, going: a:claim.unbound+pending (request=2Gi) | a:claim.going (request=2Gi) → nothing
smaller: a (request=500Mi) → nothing
whenDeleted Delete: a (whenDeleted=Delete) → own a by web
I10: … a cluster that may be gone: a (whenDeleted=Delete ?cluster) → nothing
… owned, retired: b:claim.ours !a:gone+ScaledIn@30 (whenDeleted=Delete) → nothing
… retired, left over: b:claim.ours+spare.ScaledIn@30 (whenDeleted=Delete twoTemplates)
  → seal b Sealed; seal logs-b Sealed
… Retain: a:claim.ours+spare.ours (twoTemplates)
  → own a by none; own logs-a by none; seal a Sealed; seal logs-a Sealed
I3: marked Delete, no pod: a !c:gone+PodDeleted@30! → free c PodDeleted
I3: … its pod is there, it goes already: a !c:deleted+PodDeleted@30!
  | a !c:gone+PodDeleted@30!+claim.going → nothing
I3: … Retain, of others: a !c:gone+ScaledIn@30 | a !c:gone+PodDeleted@30!+claim.unmarked → nothing
I3: never bound: a !c:gone+claim.unbound+ScaledIn@30 → free c ScaledIn
I3: … somebody wants it back: a !c:gone+PodDeleted@30!+claim.restored
  | a !c:gone+claim.unbound+ScaledIn@30+claim.restored → nothing
I3: a living member's unbound claim is kept: a z:gone+claim.unbound → z ScaledOut
sealed once it is placed: a b c:logs → seal c Sealed; seal logs-c Sealed
… not yet, not alone: a b c:logs+unscheduled | a b c → nothing
… sealed half: a b c:logs+claim.sealed → seal logs-c Sealed
`;
table('plan: keeping', actions)`
orphan with the claims of a member: a b c:orphan → adopt c Adopted
… and one that is gone, or goes and is a former cluster's (seeds 12762, 32495):
  a b c:orphan+pending+lostLogs (twoTemplates)
  | a b c:orphan+lostLogs+spare.former+spare.going (twoTemplates) → adopt c Adopted
… of no template, or there: a b c:orphan+lostLogs
  | a b c:orphan+lostLogs+spare.foreign (twoTemplates) → nothing
orphan without claims, as are all: a b !c:orphan+claimless (replicas=3 noClaims) → adopt c Adopted
F37: … where others have claims: a b !c:orphan+claimless (replicas=3) → new ScaledOut
… is none: a b !c:orphan+claimless | a b !c:orphan+claimless+deleted → nothing
orphan, other labels, other claims: a b !c:orphan+moved+claimless (replicas=3)
  | a b !c:orphan+claimAbsent (replicas=3) → new ScaledOut
F24: labels stripped, of its claim: a b c:unlabelled | a b c:claim.unlabelled
  | a b c:evicted+claim.unlabelled → relabel c Relabelled
F24: … it comes back: a b c:failed+claim.unlabelled → recreate c Returned; relabel c Relabelled
F33: labels that admission took are put back once it does so no more: a b c:moved (wasMoved)
  → relabel c Relabelled
… while it does: a b c:moved (badLabels) → blocked
I8: foreign: a b !c:foreign+asked+failed+silent+claim.unmarked | a b !c:gone+claim.foreign → nothing
I8: foreign, marked: a b !c:gone+PodDeleted@30!+claim.foreign → nothing
F37: a forged claim of a living member, older, with the marks of an end: a b
  c:stray.PodDeleted@30!+stray.older → nothing
F37: a claim of its template that nobody of us made: a b !c:gone+claim.unmarked
  | a b !c:gone+claim.unmarked+PodDeleted@30! → nothing
F37: a forged pod: a b !c:orphan+claimless+cheap | a b !c:orphan+claimless+asked → nothing
no template names its claims: a b !c:gone+claimAbsent+stray → nothing
a claim that its pod does not mount is Lost, goes: a b c:spare.lost | a b c:spare.going
  | a b c:pending+spare.lost | a b c:pending+spare.going → nothing
… an update goes on: a b c:outdated+spare.lost | a b c:outdated+spare.going → ${anew('c')}
`;
table('plan: holds', actions)`
refused: a b (replicas=3 refused) → waits
… holds no endings: a b c:deleted (refused) → retire c PodDeleted; waits
… until its time: a b (replicas=3 refusedBefore) → new ScaledOut
F29: one that is against the template: a b !y:gone+CrashLoop@5 (replicas=3) → new CrashLoop for y
F29: a second one: a b !y:gone+CrashLoop@5 !z:gone+CrashLoop@90 (replicas=3) → waits
… 10 s are over: a b !y:gone+CrashLoop@90 !z:gone+CrashLoop@90 (replicas=3) → new CrashLoop for z
… in one pass are one: a b !y:gone+CrashLoop@5 !z:gone+CrashLoop@5 (replicas=4)
  → new CrashLoop for z; new CrashLoop for y
… no restore waits for it: a !v:gone+ScaledIn@30+claim.restored !y:gone+CrashLoop@5
  !z:gone+CrashLoop@90 (replicas=3) → restore v Restored; waits
F31: what nodes did does not count: a !x:gone+NodeGone@90 !y:gone+NodeGone@90 !z:gone+NodeGone@90
  (replicas=2) → new NodeGone for z
old members: a b !c:gone+CrashLoop@5 !d:gone+CrashLoop@90 (replicas=3) → new CrashLoop for c
F36: deletions, as many as replicas: a !y:gone+PodDeleted@5 !z:gone+PodDeleted@5 (replicas=2)
  → new PodDeleted for z
F36: more: a !v:gone+PodDeleted@1 !w:gone+PodDeleted@2 !x:gone+PodDeleted@3 !y:gone+PodDeleted@4
  !z:gone+PodDeleted@5 (replicas=2) → waits
F36: pods without claims that fail: a (replicas=2 manyFailed noClaims) → waits
… no more than replicas: a (replicas=5 manyFailed noClaims) → new PodFailed for v;
  new PodFailed for w; new PodFailed for x; new PodFailed for y
`;
table('plan: index', actions)`
the smallest free one: a:#1 (start=0 replicas=3) → new ScaledOut #0; new ScaledOut #2
from its start: a (replicas=2 start=5) → new ScaledOut #5
kept for life, also without ordinals: a b:#1+gone (start=0) | a b:#1+gone → back b #1
without one yet: a:#0 b:gone (start=0) → seal b Sealed; back b #1
waits for one that is over: a:#0 b:#1+deleted c:#2 (start=0) → retire b PodDeleted
… until its end is done, for it may fail (seed 18261): a:#0 b:#1+silent c:#2 (start=0)
  → over b NodeUnreachable
… its node is silent, it is gone: a:#0 !b:#1+ScaledIn@30+deleted+silent c:#2 (start=0 replicas=3) |
  a:#0 !b:#1+gone+ScaledIn@30 c:#2 (start=0 replicas=3) → new ScaledOut #1
… another one is free: a:#0 !b:#1+ScaledIn@30+deleted (start=0 replicas=3) → new ScaledOut #2
its own again: a:#0 !c:#1+gone+ScaledIn@30+claim.restored (start=0 replicas=2) → restore c Restored
I2: two of one index, the younger ends: a:#0 b:#0 (start=0) → replace b IndexTaken
I2: … without a pod it gets another: a:#0 b:#0+gone (start=0) → seal b Sealed; back b #1
an edited label ends nobody, nor frees what its pod has: a:#0 b:#1+claim.#0 (start=0 replicas=3) |
  a:#0+claim.#1 b:#1 (start=0 replicas=3) → new ScaledOut #2
`;
/** F3: what must be read live before it is acted upon; only births do not wait. */
const questions: See = (situation, over) => {
  const seen = new Map(decide(situation, over).p.evidence.map((key) => [key, 0]));
  const { ask = [] } = planOf(snapshot(situation, { ...over, desk: { ...over.desk, seen } }));
  const nameOf = ({ kind, name }: op.Ref): string =>
    `${kind}/${kind === 'persistentvolumes' ? name : plain(name)}`;
  return ask.map(nameOf).sort().join(' ').replace(REVISION, 'R');
};
table('plan: F3: asks', questions)`
its volume, absent pod, no node yet, for 5 s: a b c:gone | a b c:unplaced | a b c:unscheduled
  → persistentvolumes/pv-c
before anything is freed: a b !c:gone+PodDeleted@30! → pods/c
judgement: a b c:silent → nodes/n-c pods/c statefulclusters/web trials/R with claims
… by its claim: a b c:gone+claim.lost
  → nodes/n-c persistentvolumeclaims/c pods/c statefulclusters/web trials/R with claims
… at the revision that its successor gets: a:outdated b:outdated c:outdated+silent (partition=3)
  → nodes/n-c pods/c statefulclusters/web trials/older with claims
scale-in: a b !c → statefulclusters/web
did admission move it: a b c:moved → trials/new
… its pod is going, which may be gone by now: a b c:deleted → nodes/n-c statefulclusters/web
absent claim: a b c:pending+claimAbsent → persistentvolumeclaims/c
asked, the others, too: a b c:asked → nodes/n-c pods/a pods/b pods/c statefulclusters/web
I2: the index of who is over, on a node that is silent: a:#0 b:#1 !c:#2+silent+ScaledIn@5
  (start=0 replicas=3) → nodes/n-c
nothing: a b:starting !c:gone+ScaledIn@30 →
`;
table('plan: wakes after', (situation, over) => decide(situation, over).p.wakeMs)`
time decides: a b c:quiet (watched=100) | a b c:gone+quiet (pinned watched=100) → 200000
own watch is trusted: a b c:silent (watched=20) → 40000
Available: a:justReady (minReadySeconds=9) → 4000
refusal, return: a (replicas=2 refused) | a b c:gone (backSoon) → 1000
no node for a minute: a b c:unscheduled → 240000
nothing: a b c → Infinity
`;
/** What the first patch of each verb changes; `off` is null, which takes away. */
const patched: See = (situation, over) => {
  const patches = decide(situation, over)
    .p.actions.filter((a) => a.do === 'Patch')
    .reverse();
  const changes = Object.fromEntries(patches.map(({ verb, change }) => [verb, change]));
  return shownAt(
    JSON.parse(JSON.stringify(changes), (_, value) => value ?? 'off'),
    over,
  );
};
const BEFORE = JSON.stringify({ revision: REVISION, before: { m: ['1', 'c:1'] } });
const UNWISHED = '"~replace":"off","~restore":"off"';
const ENDED_NOW = `"~retired":"PodDeleted","~retired-at":"${op.timeText(NOW)}"`;
const UNMARKED = '"~retired":"off","~retired-at":"off","~retired-policy":"off"';
table('plan: patches', patched)`
an end, its policy, wishes go: a b c:deleted (at=retire>metadata>annotations)
  → {${UNWISHED},${ENDED_NOW},"~retired-policy":"Retain"}
an end, its label: a b c:deleted (at=retire>metadata>labels) → {"~retired":"true"}
an end, the owner goes: a b c:deleted+claim.ours (whenDeleted=Delete
  at=retire>metadata>ownerReferences) → []
… but of what is to be deleted: a b c:deleted+claim.ours (whenDeleted=Delete whenLost=Delete
  at=retire>metadata>ownerReferences) → ""
… what one without claims has left over stays: a b c:claimless+spare+deleted (twoTemplates
  whenLost=Delete at=retire>metadata>annotations>~retired-policy) → "Retain"
restored, no mark, its seal: a !c:#1+gone+ScaledIn@30+claim.restored (replicas=2
  at=restore>metadata>annotations) → {"~claims":"data-web-${id('c')}","~restore":"off",${UNMARKED}}
… its index, as it is free: a:#0 !c:#1+gone+ScaledIn@30+claim.restored (start=0 replicas=2
  at=restore>metadata>labels) → {"INDEX":"1","~retired":"off"}
… as it is taken: a:#1 !c:#1+gone+ScaledIn@30+claim.restored (start=0 replicas=2
  at=restore>metadata>labels) → {"INDEX":"0","~retired":"off"}
… another has it, and nobody gets one: a:#1 !c:#1+gone+ScaledIn@30+claim.restored (replicas=2
  at=restore>metadata>labels) → {"INDEX":"off","~retired":"off"}
in place, the ID and image of each container before: a b c:outdated+putBack (from=image
  at=update>metadata>annotations>~in-place) → ${short(BEFORE)}
in place, the image: a b c:outdated+putBack (from=image at=update>spec)
  → {"containers":[{"image":"c:2","name":"m"}]}
`;
const byHand = suite('plan');
byHand('plan: two asked, both available → the older request, not the older member', () => {
  const seen = new Map(decide('a b:asked c').p.evidence.map((key) => [key, UPTIME - 9000]));
  const first = snapshot('a:asked b:asked c', { desk: { seen } });
  assert.is(planText(settled(first, {}).p), 'replace b ReplaceRequested');
});
byHand('F37: plan: identities of the far future on claims that others made → move no clock', () => {
  const FAR = idAt(NOW + 99 * HOUR * 1000);
  for (const states of ['gone', 'foreign+gone', 'orphan+claimless']) {
    const { p } = decide(`a !${FAR}:${states}`, { replicas: 2 });
    for (const a of p.actions)
      if (a.do === 'Make' && a.identity !== FAR) assert.ok(a.identity < FAR);
  }
});
byHand('plan: a refusal that falls due while its pass goes on → counts on', () => {
  const refused = { times: 3, untilUptime: UPTIME + 1, message: 'quota' };
  const desk = { backoff: new Map([['make/1', refused]]) };
  const { s, p } = decide('a b', { replicas: 3, desk });
  assert.is(op.remember(s, p, s.desk).backoff.get('make/1')?.times, 3);
});
byHand('plan: a birth in the place of one that ends now → waits for it, and names it', () => {
  const { p } = decide('a b c:pending+claim.going');
  const births = p.actions.flatMap((a) => (a.do === 'Make' ? [`${a.after} / ${a.replaces}`] : []));
  assert.equal(births, [`${id('c')} / ${id('c')} ClaimGone`]);
  const stages = p.actions.map((a) => op.STAGES.indexOf(op.VERBS[a.verb][0]));
  assert.equal(stages, [...stages].sort(), 'marks come before ends, and these before births');
});
byHand('plan: an orphaned revision → adopted first; once that was refused, all goes on', () => {
  const meta = { ...META, name: 'web-lost', labels: { [MARK.cluster]: 'web' } };
  const [one, ...others] = snapshot('a').revisions.values();
  const all = [one!, ...others, { ...one!, meta, hash: 'lost' }];
  const snap = { revisions: new Map(all.map((r) => [r.meta.name, r])) };
  const seen = (over: Over): string => planText(decide('a', { ...over, replicas: 2, snap }).p);
  const [first, later] = [seen({}), seen(waits('record/web-lost', -1))];
  assert.equal([first, later], ['record lost Adopted', 'record lost Adopted; new ScaledOut']);
});
const memory = (text: string, over: Over = {}, desk = over.desk ?? {}): op.Desk => {
  const { s, p } = decide(text, over);
  return op.remember(s, p, { ...DESK, ...desk, seen: s.desk.seen });
};
/** For how long each evidence of a quiet `c` counts, once this is seen. */
const seenFor = (text: string): readonly number[] => {
  const { s, p } = settled(snapshot(text, { desk: { seen: memory('a b c:quiet').seen } }), {});
  return [...new Set(op.remember(s, p, s.desk).seen.values())].map((at) => UPTIME - at);
};
const calmOf = (text: string): unknown => memory(text).calm.get(`uid-web-${id('a')}`);
const keepsC = (text: string, over: Over = {}, desk = over.desk ?? {}): boolean =>
  memory(text, over, desk).went.has(id('c'));
const keepsAs = (last: Pod | undefined, reason?: op.EndReason): boolean =>
  keepsC('a b c', {}, { went: new Map([[id('c'), { pod: last, reason, atMs: NOW }]]) });
/** What ends `c` later, when its pod went as this was so. */
const endsLater = (text: string, when: string): string | undefined => {
  const { went } = memory(text, overOf(when));
  return memberC(decide('a b c:gone', { desk: { went } }))?.end?.reason;
};
const refusedUntil = (when: string): number | undefined =>
  memory('a:outdated b', overOf(when)).backoff.get(`trials/${REVISION}`)?.untilUptime;
const backoffsKept = (makeMs: number): readonly string[] => {
  const all = { 'make/0': 1, 'make/1': makeMs, 'return/x': 1, 'trials/x': 1, 'expand/y': -UPTIME };
  const waits = (ms: number): op.Backoff => ({ times: 1, untilUptime: UPTIME + ms, message: 'x' });
  const backoff = new Map(Object.entries(all).map(([key, ms]) => [key, waits(ms)]));
  return [...memory('a', { replicas: 1, desk: { backoff } }).backoff.keys()];
};
const evicted = overOf('saw.evicted');
const DELETIONS = ['a b c:gone', 'a b c:gone+silent'].map((text) => endsLater(text, 'saw.deleted'));
facts('remember', [
  ['evidence that stays', seenFor('a b c:quiet'), [6e5]],
  ['… is newer, is gone → counts anew', [seenFor('a b c:silent'), seenFor('a b c')], [[0], []]],
  ['restarts before it was last calm', calmOf('a:crash'), 6],
  ['… not while it starts', ['a:crash+unready', 'a:crash+starting'].map(calmOf), [6, 0]],
  ['a pod that went', keepsC('a b c:gone', evicted), true],
  ['… until its member has another', keepsC('a b c', evicted), false],
  ['… without a mark', keepsC('a b !c:claimless+deleted'), true],
  ['… meanwhile', keepsAs(pod('c', going)), true],
  ['… was marked', keepsAs(undefined, 'ReplaceRequested'), true],
  ['… ends it later, not if its node was silent', DELETIONS, ['PodDeleted', undefined]],
  ['… nor if it was suspended', endsLater('a b c:gone', 'saw.deleted suspend=1'), undefined],
  ['a trial that is refused → for a minute', refusedUntil('badTrial'), UPTIME + 60_000],
  ['… that is passed → not at all', refusedUntil('from=all'), undefined],
  ['… that is unknown → not at all', refusedUntil('?trial'), undefined],
  ['other generations, members, long ago → forgotten', backoffsKept(1), ['make/1', 'trials/x']],
  ['nothing is to be made any more → forgotten', backoffsKept(0), ['trials/x']],
]);
if (TESTING) byHand.run();

const stalls = (over: Over): boolean => op.specProblem(cluster(over)) !== '';
const limit = (replicas: number, liveness = {}): number =>
  op.maxReplacementsOf(cluster({ replicas, ...liveness }).spec);
const spare = (maxUnavailable: op.IntOrPercent): number =>
  op.maxUnavailableOf(cluster({ replicas: 3, maxUnavailable }).spec);
const surgeOf = (maxSurge: op.IntOrPercent, over: Over = {}): number =>
  op.maxSurgeOf(cluster({ replicas: 3, maxSurge, podUpdatePolicy: 'Replace', ...over }).spec);
const heldFor = (times: number): number => {
  let backoff: op.Backoff | undefined;
  for (let i = 0; i < times; i++) backoff = op.nextBackoff(backoff, '', 0);
  return (backoff?.untilUptime ?? 0) / 1000;
};
const drift: See = (wanted, over) => {
  const spec = { ...gi('1Gi').spec, ...(wanted && { [wanted]: ['x'] }) };
  const one = cluster({ volumeClaimTemplates: [{ metadata: { name: 'data' }, spec }] });
  const { old, request = '1Gi' } = over;
  const own = {
    request: String(request),
    ...(old !== undefined && { name: `old-web-${id('a')}` }),
  };
  return op.claimDrift(one, id('a'), claim('a', own, { spec: { accessModes: ['y'] } }));
};
table('plan: drift', drift)`
none, larger: | (request=1Mi) →
changed: <storageClassName|accessModes|volumeAttributesClassName>
  → <storageClassName|accessModes|volumeAttributesClassName>
smaller than it is: (request=2Gi) → resources
its template is gone: (old=1) → template
`;
const NEEDS = { matchExpressions: [{ key: 'k', operator: 'Exists' }] };
const ALIEN = { ...TEMPLATE, metadata: { labels: { app: 'x' } } };
facts('plan', [
  ['spec: good', [stalls({}), stalls({ template: { spec: TEMPLATE.spec } })], [false, false]],
  ['spec: empty selector', stalls({ selector: { matchLabels: {} } }), true],
  ['spec: no match', [stalls({ template: ALIEN }), stalls({ selector: NEEDS })], [true, true]],
  ['brake: 0, 1, 2, 3, 6 replicas', [0, 1, 2, 3, 6].map((n) => limit(n)), [0, 0, 1, 1, 2]],
  ['brake: 50% of 5, rounded down', limit(5, { maxReplacements: '50%' }), 2],
  ['maxUnavailable: rounded down, at least 1', ['67%', '10%', 0].map(spare), [2, 1, 1]],
  ['maxSurge: rounded up', ['34%', 1].map((v) => surgeOf(v)), [2, 1]],
  ['maxSurge: only Replace', surgeOf(1, { podUpdatePolicy: 'Recreate' }), 0],
  ['maxSurge: paused', surgeOf(1, { paused: true }), 0],
  ['maxSurge: OnDelete', surgeOf(1, { updates: 'OnDelete' }), 0],
  ['backoff: 10 s, doubling to 5 min', [1, 2, 3, 9, 99].map(heldFor), [10, 20, 40, 300, 300]],
]);

// ═══ 6 STATUS ═══════════════════════════════════════════════════════════════════════════════════

const statusOf = (situation: string, over: Over = {}): op.Status => {
  const { s, p } = decide(situation, over);
  return op.statusOf(s, p, NOW);
};
const counters: See = (situation, over) => {
  const s = statusOf(situation, over);
  return [s.replicas, s.readyReplicas, s.availableReplicas, s.updatedReplicas].join(' ');
};
table('status: live, ready, available, updated', counters)`
starting; ends now, as the next pass sees: a b:starting | a b:deleted → 2 1 1 2
between two pods: a b:gone → 2 1 1 1
not yet Available: a b:justReady (minReadySeconds=9) → 2 2 1 2
over, foreign: a !b:deleted+ScaledIn@30 | a !b:foreign+claim.unmarked → 1 1 1 1
withheld: a b:silent c:silent → 3 1 1 3
outdated: a b:outdated → 2 2 2 1
`;
const conditions: See = (situation, over) => {
  const all = statusOf(situation, over).conditions.filter((c) => c.status === 'True');
  return all.map((c) => c.type).join(' ');
};
table('status: conditions', conditions)`
all there, outdated under OnDelete, idle: a b c | a (badTrialBefore)
  | a:outdated (updates=OnDelete) | a (idle) → Available Progressing Ready
outdated, one is missing, or too many: a b:outdated | a b c:starting | a !b
  → Available Progressing Reconciling
its update blocked: a b:outdated (badTrial) | a b:outdated (badTrialBefore) → Available Stalled
outdated, paused: a:outdated (paused=1) → Available
… a repair goes on: a:outdated b:starting (paused=1) → Available Progressing Reconciling
suspended, idle and two missing: a:gone b:gone (suspend=1) | (replicas=2 idle) →
two of three missing, the only one: a b:starting c:starting | a:starting → Progressing Reconciling
withheld: a b:silent c:silent → Progressing Reconciling ReplacementWithheld
refused, bad spec: a b (replicas=3 refused) | a (noSelector) | a (denied) → Available Stalled
drifted: a (request=1Mi) → Available Progressing Ready ClaimTemplatesDrifted
refused: a (request=2Gi no2Gi) → Available Progressing Ready ClaimTemplatesDrifted
`;
/** Part of the messages of all conditions, with letters for identities. */
const messages: See = (situation, over) => {
  const said = statusOf(situation, over)
    .conditions.map((c) => c.message)
    .join('\n');
  return said.replace(/\b[2-9b-z]{10}\b/g, (one) => LETTER.get(one) ?? one);
};
table('status: says', messages, true)`
the words of the API server: a (replicas=2 refused) → no
who is waited for: a b:starting → waiting for b Starting
what is blind: a (blind) → nodes cannot be read
which claim goes: a:claim.going → deleted: a
who waits for room: a b !c:gone+ScaledIn@30+claim.restored →
  there is room, its pod gone, no claim lost: c
who is withheld, and why: a b:silent c:silent
  → b NodeUnreachable, c NodeUnreachable); 2 are out, and at most 1 may be
… and the way out: a b:silent c:silent | a b c:silent (noHeir)
  → its pod or claim is annotated enge.me/replace=true
… and that no successor can be made: a b c:silent (noHeir) → no successor can be made: quota
until when births wait: a !y:gone+CrashLoop@5 !z:gone+CrashLoop@90 (replicas=3)
  → birth; until 2026-01-02T00:00:05Z
what a former cluster left: a !c:former+claim.former (replicas=3)
  → what a former web left is waited for: c
what stands in the way: a b c:foreign → stands in the way of c
that 0 is read as 1: a (maxUnavailable=0) → so 1 is used
what an update waits for: a:outdated b (partition=1) → a going claim keeps 1
what was refused: a (no2Gi) → refused: expand: no
no node takes it: a b:stranded → waiting for b Pending (Unschedulable: 0/1 nodes)
I6: … for 5 min: a b:stranded → enge.me/replace=true is the way out for b
`;
const members: See = (situation, over) =>
  statusOf(situation, over)
    .members.map((m) => `${plain(m.identity)} ${m.health}${m.reason && ` ${m.reason}`}`)
    .join('; ');
table('status: members', members)`
unhealthy first: b:starting a c:unready → b Starting; c Unready; a Available
is due: b a c:silent → c Unready NodeUnreachable; a Available; b Available
withheld: a:silent → a Withheld NodeUnreachable
a mark of no known Reason is none: a:claim.anyMark → a Available
returning: a:gone → a Returning
its node has no room for what it asks: a:inPlace+anew+resizing → a Updating InProgress
leaving: a !b:deleted+ScaledIn@30 → b Retiring ScaledIn; a Available
`;
const lineage: See = (situation, over) =>
  statusOf(situation, over)
    .retired.map((r) => `${plain(r.identity)} ${r.reason} ${plain(r.replacedBy) || '-'}`)
    .join('; ');
table('status: retired', lineage)`
F42: not in the pass itself, restored: a b c:deleted | a b c:gone (cInStatus) →
from the marks: !a:gone+PodDeleted@400 y:forPodDeleted → a PodDeleted y
scaled in: a !b:gone+ScaledIn@30 → b ScaledIn -
no object is left: a b (cInStatus) → c PodDeleted y
newest first: a !b:gone+PodDeleted@20 !c:gone+ScaledIn@30 → b PodDeleted -; c ScaledIn -
of one second, the youngest first: a !b:gone+ScaledIn@30 !c:gone+ScaledIn@30 → c ScaledIn -;
  b ScaledIn -
`;
table('status: replacements', (situation, over) => statusOf(situation, over).replacements)`
not in the pass itself, a scale-out, a return: a b c:deleted (newestC)
  | a b (replicas=3 newestC) | a b c:gone (newestC) → 4
seen in the cache: b c y:justReady+forPodDeleted (newestC) → 5
counted before: b c y:forPodDeleted (newestZ) → 4
by one that nobody owns any more: b c !y:orphan+claimless+forPodDeleted (newestC) → 4
`;
table('status: newestIdentity', (text, over) => plain(statusOf(text, over).newestIdentity))`
of the members: a b → b
only raised: a b (newestZ) → z
one that this process saw go (seed 10610): a b (saw.claimless+justReady) → c
`;
table('status: currentRevision', (situation, over) => statusOf(situation, over).currentRevision)`
the other one, shown by a pod, or told: a b:outdated | a:gone b:gone (toldOlder)
  | a b:gone (toldOlder) → older
none other: a b | a b (toldOlder) → ${REVISION}
`;
const news: See = (situation, over) => {
  const told = op.storiesOf(decide(situation, over).p.actions);
  const text = told.map((e) => `${e.type} ${e.reason}: ${e.message}`).join('; ');
  return text.replace(/\b[2-9b-z]{10}\b/g, (one) => LETTER.get(one) ?? 'new');
};
table('status: Events', news)`
two Reasons in one pass: a b:deleted (replicas=5) → Warning PodDeleted: retired claim data-web-b;
  replaced b by new; Normal ScaledOut: created new, new, new
nobody is lost: a b:gone → Normal Returned: created b
nobody is lost: a b:<failed|outdated> → Normal <Returned|Recreated>: deleted pod web-b
nobody is lost: a !b → Normal ScaledIn: retired claim data-web-b; deleted pod web-b
the last words: a b c:claimless+failed+spoke
  → Warning PodFailed: deleted pod web-c; replaced c by new; exit code 137
bookkeeping is no news: a b c:announced →
`;
const spoken = statusOf('a b !c:deleted+PodDeleted@5+spoke').retired;
const toldBefore = statusOf('a b', overOf('cInStatus')).retired;
const farAway = statusOf('a !c:gone+PodDeleted@5+claim.farAway').retired[0]?.at;
const whyStalled = (when: string): string | undefined =>
  statusOf('a', overOf(when)).conditions.find((c) => c.type === 'Stalled')?.reason;
const WHYS = ['denied', 'noSelector', 'refused', 'twoTemplates'].map(whyStalled).join();
const gone = statusOf('a !b:gone+ScaledIn@30 !c:gone+PodDeleted@30!+claim.going');
facts('status', [
  ['selector', statusOf('a').selector, 'app=web'],
  ['why it is Stalled', WHYS, 'Forbidden,InvalidSpec,Refused,NotStalled'],
  ['retiredClaims', gone.retiredClaims, 1],
  ['retired: the last words', spoken[0]?.message, 'exit code 137'],
  ['F37: retired in the year 275760: as its claim was made', farAway, op.timeText(META.createdMs)],
  ['retired: its time stays, not claims that went', toldBefore, [RETIRED]],
]);
const tellings = suite('status');
tellings('status: an unchanged cluster a minute later → the same status, byte for byte', () => {
  for (const situation of ['a b:starting c', 'a b:silent c:silent', 'a b:unready', 'a b:gone']) {
    const { s } = decide(situation, {});
    const { p } = settled(s, {});
    const status = op.statusOf(s, p, NOW);
    const later = { ...s, cluster: { ...s.cluster, status }, uptime: s.uptime + 60_000 };
    const again = settled(later, {}, NOW + 60_000);
    assert.is(json(op.statusOf(again.s, again.p, NOW + 60_000)), json(status));
  }
});
const crowdOf = (count: number, states = ''): string =>
  Array.from(drawn(count, []), (one) => one + states).join(' ');
tellings('status: 150 members → 100 are shown, 150 counted', () => {
  const { members, replicas } = statusOf(crowdOf(150));
  assert.equal([members.length, replicas], [100, 150]);
});
tellings('status: 999 members run on claims being deleted → the schema takes it', () => {
  const { conditions } = statusOf(crowdOf(999, ':outdated+claim.going'));
  assert.ok(Math.max(...conditions.map((c) => c.message.length)) < 1000);
});
tellings('status: F45: an init container waits, another just ended → down, its word', () => {
  const state = { waiting: { reason: 'CrashLoopBackOff' } };
  const waiting = { name: 'i', restartCount: 7, state };
  const main = { name: 'm', restartCount: 0, state: { waiting: { reason: 'PodInitializing' } } };
  const p = podOf({ status: { containerStatuses: [main], initContainerStatuses: [waiting] } });
  assert.equal([p.trouble, p.isDown, p.restarts], ['CrashLoopBackOff', true, 7]);
  const over = { name: 'm', state: { terminated: { exitCode: 3 } } };
  assert.ok(podOf({ status: { containerStatuses: [over] } }).isDown);
});
tellings('status: no node takes the pod → the word of the scheduler', () => {
  const conditions = [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }];
  assert.is(podOf({ status: { conditions } }).trouble, 'Unschedulable');
  const message = '0/3 nodes are available';
  const told = conditions.map((c) => ({ ...c, message }));
  assert.is(podOf({ status: { conditions: told } }).lastWords, message);
});
tellings('status: a drain with a grace of its own → that is when it went', () => {
  assert.is(podOf({ metadata: { deletionGracePeriodSeconds: 5 } }).graceSeconds, 5);
});
tellings('status: no node takes it for less than 5 min → no way out is named yet', () => {
  const ready = statusOf('a b:unscheduled').conditions.find((c) => c.type === 'Ready');
  assert.not.match(ready?.message ?? '', MARK.replace);
});
if (TESTING) tellings.run();

// ═══ 13 LEADER and 14 PROBES ════════════════════════════════════════════════════════════════════

const shareOf = (text: string): op.Share => {
  const [namespaces = '', selector = ''] = text.trim().split(';');
  return { namespaces: namespaces.split(',').filter(Boolean), selector: selector.trim() };
};
const leaseOf = (text: string): string => op.leaseName(shareOf(text));
/** Of two scopes, `namespaces;selector`: may one cluster be in both? */
const overlap: See = (situation) => {
  const [x = shareOf(''), y = shareOf('')] = situation.split('&').map(shareOf);
  return [op.overlaps(x, y), op.overlaps(y, x)];
};
table('leader: scopes', overlap)`
all of them: & | & a | & ;t=x → true,true
one is in both: a & a | a,b & b,c | a & ;t=x | ;t=x & ;t=x → true,true
two namespaces or two selectors: a & b | a;t=x & b;t=x | a;t=x & a;t=y | ;t=x & ;t=y → false,false
`;
facts('leader', [
  ['the usual scope → the usual name', leaseOf(''), 'statefulcluster'],
  ['part → a name of its own', leaseOf('a'), 'statefulcluster-fprqfrj6gx'],
  ['the order → no matter', leaseOf('b,a,b;t=x'), leaseOf('a,b;t=x')],
  ['namespace or selector → told apart', leaseOf(';a') === leaseOf('a'), false],
]);

const LABEL = String.raw`\w+="(?:[^"\\]|\\[\\"n])*"`;
const NUMBER = String.raw`[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?|[+-]Inf|NaN`;
const SAMPLE = String.raw`(?:_bucket|_sum|_count)?(?:\{${LABEL}(?:,${LABEL})*\})? (?:${NUMBER})\n`;
const TYPED = String.raw`# TYPE \1 (counter(?<=_total counter)|gauge|histogram)`;
const FAMILY = RegExp(String.raw`^# HELP (\w+) .+\n${TYPED}\n((?:\1${SAMPLE})*)$`);
/** The text format 0.0.4, read strictly: what is not allowed throws. Series → value. */
function parseMetrics(text: string): ReadonlyMap<string, number> {
  const families = text.split(/^(?=# HELP )/m).map((family) => {
    const [, name, type, samples = ''] = FAMILY.exec(family) ?? [];
    if (!name || (type !== 'counter' && name.endsWith('_total'))) throw new Error(family);
    return { name, series: samples.split('\n').slice(0, -1) };
  });
  const all = families.flatMap(({ series }) => series.map((line) => line.split(/ (?=\S+$)/)));
  const found = new Map(all.map(([key = '', value]) => [key, Number(value)]));
  if (found.size < all.length || new Set(families.map(({ name }) => name)).size < families.length)
    throw new Error('one is there twice');
  return found;
}
const HEAD = '# HELP a_total x\n# TYPE a_total counter\n';
/** Texts that a strict reader refuses. */
const WRONG: Readonly<Record<string, string>> = {
  'no newline': `${HEAD}a_total 1`,
  'no TYPE': 'a_total 1\n',
  'no number': `${HEAD}a_total x\n`,
  ...{ 'a series twice': `${HEAD}a_total 1\na_total 1\n`, 'a stranger': `${HEAD}b_total 1\n` },
  ...{ 'a split family': `${HEAD}${HEAD}`, 'a bare label': `${HEAD}a_total{x=1} 1\n` },
  'a bad escape': `${HEAD}a_total{x="\\t"} 1\n`,
  'a gauge as _total': '# HELP a_total x\n# TYPE a_total gauge\na_total 1\n',
};

/** A World whose clock stands still until it is set, and whose requests do as they are told. */
function stillWorld() {
  const answers: (number | Error)[] = [];
  const state = { uptime: 1000, answers, on: (_: WatchEvent): void => {} };
  const answer = async (): Promise<ApiResponse> => {
    const next = state.answers.shift() ?? 200;
    state.uptime += 30;
    if (typeof next !== 'number') throw next;
    return { status: next, headers: {}, body: {} };
  };
  const { promise: never } = Promise.withResolvers<ApiResponse>();
  const world: World = {
    ...{ now: () => NOW, uptime: () => state.uptime, random: () => 0, log: () => undefined },
    ...{ sleep: async () => undefined, send: answer },
    watch: (_, on) => ((state.on = on), state.answers.length > 0 ? answer() : never),
  };
  const vitals = op.newVitals(world);
  const page = (path: string): string => op.pageOf(vitals, path).join(' ').trim();
  const series = () => parseMetrics(op.metricsText(vitals));
  return { state, vitals, world: op.measured(vitals), page, series };
}
const probes = suite('probes');
probes('probes: what the strict reader must refuse → refused', () => {
  for (const [why, text] of Object.entries(WRONG)) assert.throws(() => parseMetrics(text), '', why);
  assert.is(parseMetrics(`${HEAD}a_total{x="a\\"b,c=\\"}"} 1.5e-7\n`).size, 1);
});
probes('probes: /metrics at the start → every family with HELP and TYPE, known series at 0', () => {
  const { page, series: read } = stillWorld();
  const [text, series] = [page('/metrics'), read()];
  for (const [name, [type, help]] of Object.entries(op.METRICS))
    assert.ok(text.includes(`# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`), name);
  for (const reason of Object.keys(op.ENDS))
    assert.is(series.get(`statefulcluster_replacements_total{reason="${reason}"}`), 0);
  assert.is(series.get('statefulcluster_leader'), 0);
  assert.ok((series.get('process_resident_memory_bytes') ?? 0) > 1e7);
});
probes('probes: requests, watches, passes → counted once each, as they ended', async () => {
  const { state, vitals, world, page, series } = stillWorld();
  state.answers.push(200, 409, new Error('reset'), 200);
  const post = { method: 'POST', path: '/api/v1/pods' } as const;
  for (let i = 0; i < 3; i++) await world.send(post).catch(() => undefined);
  const follow = () =>
    world.watch('/api/v1/pods?watch=true', () => undefined, new AbortController().signal);
  await follow();
  void follow();
  world.log('warn', 'watch restarts', { error: 'x' });
  world.log('info', 'leads');
  for (const ms of [300, 30_000])
    op.time(vitals, 'statefulcluster_reconcile_duration_seconds', {}, ms);
  const wanted: Record<string, number> = {
    'api_requests_total{verb="POST",code="200"}': 1,
    'api_requests_total{verb="POST",code="409"}': 1,
    'api_requests_total{verb="POST",code="none"}': 1,
    'api_requests_total{verb="WATCH",code="200"}': 1,
    'api_request_duration_seconds_count{verb="POST"}': 3,
    'api_request_duration_seconds_bucket{verb="POST",le="0.025"}': 0,
    'api_request_duration_seconds_bucket{verb="POST",le="0.05"}': 3,
  };
  const seen = Object.keys(wanted).map((key) => [key, series().get(`statefulcluster_${key}`)]);
  assert.equal(Object.fromEntries(seen), wanted);
  const passes = page('/metrics').match(/(?<=reconcile_duration_seconds_)[bsc].* \S+$/gm);
  const upTo = (edges: string, count: number): readonly string[] =>
    edges.split(' ').map((edge) => `bucket{le="${edge}"} ${count}`);
  const early = upTo('0.005 0.01 0.025 0.05 0.1 0.25', 0);
  const late = [...upTo('0.5 1 2.5 5 10', 1), ...upTo('+Inf', 2)];
  assert.equal(passes, [...early, ...late, 'sum 30.3', 'count 2']);
});
probes('probes: a pass tells of 300 members → all counted; what is over leaves no series', () => {
  const { vitals, page } = stillWorld();
  const shown = (): readonly string[] =>
    page('/metrics').match(/^statefulcluster_(members|condition|retired_claims)\{.*$/gm) ?? [];
  const rest = { reason: 'x', message: '', observedGeneration: 1, lastTransitionTime: '' };
  const turn = (type: string, status: 'True' | 'False') => ({ type, status, ...rest });
  const conditions = [turn('Ready', 'False'), turn('Stalled', 'True')];
  const states: op.State[] = [...Array<'Available'>(299).fill('Available'), 'Withheld'];
  vitals.sights.set('a/web', { states, conditions, retiredClaims: 7 });
  assert.equal(shown(), [
    'statefulcluster_members{namespace="a",name="web",health="Available"} 299',
    'statefulcluster_members{namespace="a",name="web",health="Withheld"} 1',
    'statefulcluster_condition{namespace="a",name="web",type="Ready"} 0',
    'statefulcluster_condition{namespace="a",name="web",type="Stalled"} 1',
    'statefulcluster_retired_claims{namespace="a",name="web"} 7',
  ]);
  vitals.sights.set('a/web', { states: ['Available'], conditions: [], retiredClaims: 0 });
  assert.is(shown().length, 2);
  vitals.sights.delete('a/web');
  assert.equal(shown(), []);
});
probes('probes: a standby, a leader that syncs, one that works → readiness, in words', () => {
  const { state, vitals, world, page, series } = stillWorld();
  assert.is(page('/readyz'), '200 standby');
  vitals.phase = 'syncing';
  void world.watch('/api/v1/pods?x', () => undefined, new AbortController().signal);
  state.uptime += 5000;
  const age = (seconds: number): string => `/api/v1/pods: last event or bookmark ${seconds} s ago`;
  assert.is(page('/readyz'), `503 leader, the caches are not synced\n${age(5)}`);
  Object.assign(vitals, { phase: 'synced', depth: () => 7 });
  assert.is(page('/readyz'), `200 leader\n${age(5)}`);
  state.on({ type: 'BOOKMARK', object: {} });
  state.uptime += 29_000;
  assert.is(page('/readyz'), `200 leader\n${age(29)}`);
  assert.is(series().get('statefulcluster_queue_depth'), 7);
  assert.is(page('/other'), '404 there are /healthz, /readyz and /metrics');
});
probes('F5: no sign of a watch for 15 min, or a blocked loop → /healthz fails', async () => {
  const { state, world, page } = stillWorld();
  const { signal } = new AbortController();
  state.uptime += 1e7;
  assert.is(page('/healthz'), '200 ok', 'a standby has none');
  void world.watch('/api/v1/pods', () => undefined, signal);
  state.uptime += 900_000;
  assert.is(page('/healthz'), '200 ok');
  state.uptime += 1;
  assert.is(page('/healthz'), '500 no sign of the watch /api/v1/pods for 900 s');
  state.on({ type: 'BOOKMARK', object: {} });
  assert.is(page('/healthz'), '200 ok');
  state.uptime += 900_001;
  state.answers.push(new Error('connect ECONNREFUSED')); // It is away, and tried again.
  await world.watch('/api/v1/pods', () => undefined, signal).catch(() => undefined);
  assert.is(page('/healthz'), '200 ok', 'a server that is away is no illness of this process');
  state.uptime += 900_001;
  await world.send({ method: 'GET', path: '/api/v1/pods?limit=500' });
  assert.is(page('/healthz'), '200 ok', 'older servers are asked for lists before watches');
});
probes('probes: --probe-addr → an address, nowhere, or a refusal', async () => {
  const { error } = console;
  let said = '';
  console.error = (text: string): void => void (said = text);
  const tried = async (address: string): Promise<string> => {
    const words = ['run', '--kubeconfig', '/absent', '--probe-addr', address];
    return `${await op.main(words)} ${said}`;
  };
  for (const text of [':8080', 'localhost:1', '127.0.0.1:0', '[::1]:9', '0'])
    assert.match(await tried(text), /^1 statefulcluster: cannot read \/absent/, text);
  for (const text of ['8080', '', ':', ':x', ':655360', '[::1]'])
    assert.match(await tried(text), /^2 statefulcluster: usage: --probe-addr ADDR/, text);
  console.error = error;
});
if (TESTING) probes.run();

// ═══ TIDY ═══════════════════════════════════════════════════════════════════════════════════════

/** Lines that a file may have: whoever audits must be able to read them. They may only fall:
 *  DESIGN.md asks for 5,000 lines of operator.ts, 2,400 of them in rooms 0 to 6. */
const CAPS = { 'operator.ts': 5000, 'operator.test.ts': 12500, 'build.mjs': 420 };
const PURE_MAX = 2400; // Lines of rooms 0 to 6.
const LINE_MAX = 100; // Characters.
const FUNCTION_MAX = 60; // Lines.
const ROOMS = (
  '0 FRONT DOOR,1 VOCABULARY,2 TOOLS,3 IDENTITY,4 HEALTH,5 PLAN,6 STATUS,THE LINE,7 WORLD,' +
  '8 CLIENT,9 CACHE,10 QUEUE,11 EXECUTOR,12 CONTROLLER,13 LEADER,14 PROBES,15 CLI,16 MAIN'
).split(',');
const fileText = (file: string): string => fs.readFileSync(path.join(ROOT, file), 'utf8');
const linesOf = (file: string): readonly string[] => fileText(file).trimEnd().split('\n');
const where = (file: string, at: number): string => `${file}:${at + 1}`;
const linesThat = (file: string, are: (line: string) => boolean): readonly string[] =>
  linesOf(file).flatMap((line, i) => (are(line) ? [where(file, i)] : []));

/** Rooms, each with its lines up to the next banner. */
function roomsOf(lines: readonly string[]) {
  const starts = lines.flatMap((line, i) => (line.startsWith('// ═══ ') ? [i] : []));
  return starts.map((line, i) => ({
    title: (lines[line] ?? '').replace(/^\/\/ ═══ (.*?) ═+$/, '$1').replace(/ · \w+$/, ''),
    ...{ line, lines: (starts[i + 1] ?? lines.length) - line },
  }));
}
/** Statements that hold a function, by the indentation that prettier gives: from the line that
 *  opens it to the last line that is deeper, or closes at the same depth. */
function longFunctions(file: string): readonly string[] {
  const lines = linesOf(file);
  const depth = (line: string): number => line.search(/\S/);
  return lines.flatMap((line, i) => {
    if (!/\bfunction\b.*\($|\bfunction\b.*\{$|=> ?[{(]?$|^ +(async )?\w+\(.*\{$/.test(line))
      return [];
    if (/^\s*(\/\/|\*|\/\*)/.test(line)) return [];
    const within = (next: string): boolean =>
      next === '' ||
      depth(next) > depth(line) ||
      (depth(next) === depth(line) && /^\s*[})\]]/.test(next));
    let end = i;
    while (end + 1 < lines.length && within(lines[end + 1] ?? '')) end++;
    while (lines[end] === '') end--;
    return end - i + 1 > FUNCTION_MAX ? [`${where(file, i)} has ${end - i + 1} lines`] : [];
  });
}
const withoutWords = (code: string): string =>
  code.replace(/\/\*[\s\S]*?\*\/|(^|\s)\/\/.*$|'(?:[^'\\\n]|\\.)*'/gm, (text) =>
    text.replace(/[^\n]/g, ' '),
  );

const tidy = suite('tidy');
/** A rule: what is found against it, of a file or at all, must be nothing. */
function rule(title: string, against: () => readonly unknown[]): void {
  tidy(`tidy: ${title}`, () => assert.equal(against(), []));
}
for (const [file, cap] of Object.entries(CAPS)) {
  rule(`${file} → no more than ${cap} lines`, () => linesOf(file).slice(cap));
  rule(`${file} → no line over ${LINE_MAX} columns`, () =>
    linesThat(file, (l) => [...l].length > LINE_MAX),
  );
  rule(`${file} → no function over ${FUNCTION_MAX} lines`, () => longFunctions(file));
}
for (const file of [...Object.keys(CAPS), 'deploy.yaml', 'README.md'])
  rule(`${file} → nothing is left to do`, () =>
    linesThat(file, (l) => /TO[D]O|FIX[M]E|XX[X]/.test(l)),
  );
const lineOfTheLine = (): number =>
  roomsOf(linesOf('operator.ts')).find((r) => r.title === 'THE LINE')?.line ?? 0;
const decides = (): readonly string[] =>
  linesOf('operator.ts').slice(roomsOf(linesOf('operator.ts'))[0]?.line, lineOfTheLine());
rule(`operator.ts → what decides has no more than ${PURE_MAX} lines`, () =>
  decides().slice(PURE_MAX),
);
tidy('tidy: operator.ts → rooms in order, each with its banner and 2 to 6 lines of it', () => {
  const lines = linesOf('operator.ts');
  const rooms = roomsOf(lines);
  const titles = rooms.map((r) => r.title);
  assert.equal(titles, ROOMS);
  for (const { title, line } of rooms) {
    const kind = title === 'THE LINE' ? '' : ` · ${line < lineOfTheLine() ? 'pure' : 'effects'}`;
    assert.is(lines[line], `// ═══ ${title}${kind} `.padEnd(LINE_MAX, '═'));
    const said = lines.slice(line + 1).findIndex((l) => !l.startsWith('//'));
    const most = title === '0 FRONT DOOR' ? Infinity : 6;
    assert.ok(said >= 2 && said <= most, `${title} is introduced by ${said} lines`);
  }
});
rule('operator.ts → above THE LINE no time, no chance, no effects', () => {
  const barred =
    /\b(await|async|Date\.now|Math\.random|process|fetch|console|kleur|setTimeout)\b|new Date\(/;
  const code = withoutWords(decides().join('\n')).split('\n');
  return code.filter((line, i) => barred.test(line) && !code[i - 1]?.includes('const timeText ='));
});
/** What a process remembers of a cluster, and why to lose it ends no identity sooner. A field that
 *  is not listed here, and argued for, fails; so does one that is gone. */
const DESK_FIELDS: Readonly<Record<keyof op.Desk, string>> = {
  seen: 'a duration begins anew; PodDeleted by its memory needs the pod, whose times say the same',
  went: 'whoever is seen to go without it returns; who ended without a mark loses the word only',
  calm: 'restarts of a pod that was Ready once are taken for old ones',
  backoff: 'what was refused is tried again; a judged member needs its trial in the same pass',
};
tidy('tidy: operator.ts → the fields of Desk are argued for, one by one', () => {
  const [, fields = ''] =
    /^export interface Desk \{\n([^}]*)\}/m.exec(fileText('operator.ts')) ?? [];
  const names = [...fields.matchAll(/^ {2}readonly (\w+):/gm)].map(([, name]) => name);
  assert.equal(names, Object.keys(DESK_FIELDS));
});
rule('operator.ts → one vocabulary, no word of a former one', () => {
  const former = /\b(Verdict|Standing|Judged|Memory|Comeback|Recreation|healthWord)\b/;
  return former.exec(withoutWords(fileText('operator.ts'))) ?? [];
});
rule('operator.ts → each word of its vocabulary is used', () =>
  [...Object.keys(op.ENDS), ...op.STATES, ...Object.keys(op.VERBS)].filter(
    (word) => !fileText('operator.ts').includes(`'${word}'`),
  ),
);
rule('operator.ts → no number stands for another thing than a number', () =>
  linesThat('operator.ts', (line) => /[vV]ersion\w*\b.{0,12}(Infinity|-1\b)/.test(line)),
);
rule('operator.ts → every exported function and interface says what it is', () =>
  linesOf('operator.ts').filter(
    (line, i, lines) =>
      /^export (async )?(function|interface) /.test(line) &&
      !/\*\/$|^\/\//.test(lines[i - 1] ?? ''),
  ),
);
tidy('tidy: deploy.yaml → the operator has the verbs of RIGHTS, no more and no fewer', () => {
  const roles = fileText('deploy.yaml')
    .split(/^---$/m)
    .filter((d) => /^kind: (Cluster)?Role( #.*)?$[\s\S]*^ +\S+component: operator$/m.test(d));
  assert.is(roles.length, 3, 'its namespaced kinds, nodes and volumes, the Lease');
  const rule = /apiGroups: \['?([\w.]*)'?\]\s+resources: \[(.*?)\]\s+verbs: \[(.*?)\]/g;
  const rules = roles.flatMap((role) => [...role.matchAll(rule)]);
  const rights = rules.flatMap(([, group, resources = '', verbs = '']) =>
    resources.split(', ').map((r) => [group ? `${group}/${r}` : r, verbs.replaceAll(',', '')]),
  );
  assert.equal(Object.fromEntries(rights), { ...op.RIGHTS });
  assert.is(roles.join('').split('apiGroups:').length - 1, rights.length, 'every rule is read');
});
rule('operator.test.ts → every failure to survive is in a title', () => {
  // In titles, and in rows of tables, which become titles.
  const titles = fileText('operator.test.ts').match(/^(.*['`]([a-z]+: )*)?F\d+: .*$/gm) ?? [];
  const rows = Array.from({ length: 45 }, (_, i) => `F${i + 1}: `);
  return rows.filter((row) => !titles.some((title) => title.includes(row)));
});
tidy('tidy: README.md → its table of rooms has the true line counts', () => {
  const rooms = roomsOf(linesOf('operator.ts')).filter((r) => r.title !== 'THE LINE');
  const row = /^\| *(\d+) *\| *([A-Z ]+?)(?::[^|]*)? *\| *(\d+) *\|$/gm;
  const rows = fileText('README.md').matchAll(row);
  const claimed = [...rows].map(([, ...cells]) => cells.join(' '));
  const real = rooms.map((r) => `${r.title} ${r.lines}`);
  assert.equal(claimed, real);
});
rule('README.md → names every metric', () =>
  Object.keys(op.METRICS).filter((name) => !fileText('README.md').includes(`\`${name}\``)),
);
for (const file of ['README.md', 'deploy.yaml']) {
  tidy(`tidy: ${file} → names the version of package.json, and no other`, () => {
    const { version } = JSON.parse(fileText('package.json')) as { version: string };
    const named = /(?:statefulcluster[:@]v?|releases\/download\/v|\bversion )(\d+\.\d+\.\d+)/g;
    const claimed = [...fileText(file).matchAll(named)].map(([, v]) => v);
    assert.ok(claimed.length > 0, 'no version is named');
    assert.equal([...new Set(claimed)], [version]);
  });
}
if (TESTING) tidy.run();

// ═══ 9 CACHE and 10 QUEUE · effects ═════════════════════════════════════════════════════════════
// One feed in a World that answers from a script: a step is the answer to the next list or watch.

interface Step {
  readonly events?: readonly WatchEvent[];
  readonly answer?: ApiResponse | Error; // At the end of the events; none: the stream stays open.
}
const answered = (status: number, body?: unknown, headers = {}): ApiResponse => {
  return { status, headers, body };
};
const namedAt = (name: string, version: number): Raw => ({
  metadata: { name, uid: name, resourceVersion: `${version}` },
});
const initialEnd = { 'k8s.io/initial-events-end': 'true' };
const endOfList = (version: number): WatchEvent => {
  const metadata = { resourceVersion: `${version}`, annotations: initialEnd };
  return { type: 'BOOKMARK', object: { metadata } };
};
const listedAs = (version: number, ...names: string[]): readonly WatchEvent[] => [
  ...names.map((name): WatchEvent => ({ type: 'ADDED', object: namedAt(name, version) })),
  endOfList(version),
];
const pageOf = (version: number, more: string, ...names: string[]): ApiResponse =>
  answered(200, {
    kind: 'PodList',
    metadata: { resourceVersion: `${version}`, continue: more },
    items: names.map((name) => namedAt(name, version)),
  });
const tooOldStatus = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' };
/** What was asked, slept and held, step by step, until the script is over. */
async function followed(path: string, groups: readonly Raw[], ...steps: readonly Step[]) {
  const [said, left, held] = [[] as string[], [...steps], new Set<string>()];
  const stop = new AbortController();
  let uptime = 0;
  const next = (what: string): Step => {
    said.push(held.size > 0 ? `${what} (${[...held].join()})` : what);
    const step = left.shift();
    if (!step) stop.abort();
    return step ?? { answer: answered(200) };
  };
  const world: World = {
    ...{ now: () => uptime, uptime: () => uptime, random: () => 0.5, log: () => undefined },
    sleep: async (ms) => ((uptime += ms), void said.push(`${ms / 1000} s`)),
    send: async ({ path }) => {
      if (path === '/apis') return answered(200, { kind: 'APIGroupList', groups });
      if (path === '/apis/enge.me/v1alpha1') return answered(404, '<html>');
      const page = new URLSearchParams(path.split('?')[1]).get('continue');
      const { answer = answered(200) } = next(`list ${page ?? 'all'}`);
      if (answer instanceof Error) throw answer;
      return answer;
    },
    watch: async (path, on, signal) => {
      const query = new URLSearchParams(path.split('?')[1]);
      const from = query.get('resourceVersion') || 'new';
      const { events = [], answer } = next(query.has('sendInitialEvents') ? `${from}!` : from);
      uptime += 5000;
      events.forEach(on);
      if (!answer && !signal.aborted) await new Promise<void>((end) => onAbort(signal, end));
      if (answer instanceof Error) throw answer;
      return answer ?? answered(200);
    },
  };
  const project = (raw: Raw) => ({ meta: metaOf(raw) });
  const on = (before?: { meta: Meta }, after?: { meta: Meta }): void => {
    if (after) held.add(after.meta.name);
    else held.delete(before?.meta.name ?? '');
  };
  const given = { world, path, project, on };
  await follow({ ...given, signal: stop.signal }).done;
  return said.join(', ');
}
/** Answers in words; the lists of a stream that then ends, or, of `left open`, does not. */
const lost: WatchEvent = { type: 'DELETED', object: namedAt('a', 6) };
const expiredEvent: WatchEvent = { type: 'ERROR', object: tooOldStatus };
const fine = answered(200);
const STEP_WORDS: Readonly<Record<string, Step>> = {
  first: { events: listedAs(5, 'a'), answer: fine },
  second: { events: listedAs(9, 'b'), answer: fine },
  'left open': { events: [...listedAs(5, 'a'), expiredEvent] },
  deleted: { events: [...listedAs(5, 'a').slice(0, 1), lost, ...listedAs(6, 'b')], answer: fine },
  old: { answer: answered(422, { message: 'sendInitialEvents is forbidden' }) },
  '7 a …': { answer: pageOf(7, 'p2', 'a') },
  '7 a': { answer: pageOf(7, '', 'a') },
  '8 a': { answer: pageOf(8, '', 'a') },
  '9 b': { answer: pageOf(9, '', 'b') },
  other: { answer: answered(200, { ...(pageOf(9, '', 'b').body as Raw), kind: 'Status' }) },
  302: { answer: answered(302, undefined, { location: '/login' }) },
  404: { answer: answered(404, '<html>') },
  410: { answer: answered(410, tooOldStatus) },
  429: { answer: answered(429, { reason: 'TooManyRequests' }, { 'retry-after': '20' }) },
  garbage: { answer: new Error('the answer is not JSON') },
  reset: { answer: new Error('read ECONNRESET') },
  mute: { answer: new Error('no answer to a ping for 10000 ms') },
};
const stepOf = (word: string): Step =>
  /^(200|50\d)$/.test(word) ? { answer: answered(Number(word)) } : explained(STEP_WORDS, word);
const caches = suite('cache');
for (const row of rowsIn`
F6: an ERROR event of 410, the stream left open, listed anew: left open, second
  → new!, 0.6 s, new! (a), 9 (b)
F6: an answer of 410, listed anew: first, 410, second → new!, 5 (a), 0.6 s, new! (a), 9 (b)
F6: 410 on the second page, nothing of the first is believed: old, 7 a …, 410, 9 b
  → new!, 0.6 s, list all, list p2, 1.2 s, list all, 9 (b)
F7: 429 with Retry-After, that long, then listed anew, what is known stays: first, 429, 429
  → new!, 5 (a), 20 s, new! (a), 20 s, new! (a)
F7: a page, a reset, 503, ever more slowly, what is known stays: first, garbage, reset, 503, second
  → new!, 5 (a), 0.6 s, new! (a), 1.2 s, new! (a), 2.4 s, new! (a), 9 (b)
F5: streams that end at once, without news, ever more slowly: first, mute, mute, mute
  → new!, 5 (a), 0.6 s, new! (a), 1.2 s, new! (a), 2.4 s, new! (a)
F7: where lists pass and watches fail, ever more slowly: old, 7 a, 500, 8 a, 500
  → new!, 0.6 s, list all, 7 (a), 1.2 s, list all (a), 8 (a), 2.4 s, list all (a)
F4: deleted before the end of the list is told, not kept: deleted → new!, 6 (b)
F25: the kind is gone, so are its objects, and it is asked for ever more slowly, of our kind:
  first, 404, 404, 404, 404, 404, 404, 404, 404 → new!, 5 (a), 0.6 s, new!, 1.2 s, new!, 2.4 s,
  new!, 4.8 s, new!, 9.6 s, new!, 19.2 s, new!, 22.5 s, new!, 22.5 s, new!
F25: 404, discovery still has it, what is known stays, of our kind: first, 404, 200
  → new!, 5 (a), 0.6 s, new! (a), new! (a)
F7: a redirect, an empty page, JSON of another, ever more slowly, nothing is believed:
  old, 302, 200, other, 9 b, 302 → new!, 0.6 s, list all, 1.2 s, list all, 2.4 s, list all,
  4.8 s, list all, 9 (b), 9.6 s, list all (b)
F7: a proxy's 404, what is known stays: first, 404, 200 → new!, 5 (a), 0.6 s, new! (a), new! (a)
`) {
  const [, title = '', steps = '', wanted = ''] = /^(.*?: .*?): (.*) → (.*)$/.exec(row) ?? [];
  const path = title.includes('our kind')
    ? '/apis/enge.me/v1alpha1/statefulclusters'
    : '/api/v1/pods';
  const groups = title.includes('discovery') ? [{ name: 'enge.me' }] : [];
  caches(`cache: ${title} → ${wanted}`, async () =>
    assert.is(await followed(path, groups, ...steps.split(', ').map(stepOf)), wanted),
  );
}
caches('F30: SIGTERM while the first list hangs → it ends', async () => {
  const { promise: never } = Promise.withResolvers<ApiResponse>();
  const world = { ...stillWorld().world, send: () => never, watch: async () => answered(422) };
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 50);
  await op.runOperator(world, { namespaces: [], selector: '', workers: 1 }, stop.signal);
});
caches('queue: F7: 429 with Retry-After on a write → that key waits, no other', async () => {
  const waits: number[] = [];
  const sleep: World['sleep'] = async (ms) => void waits.push(ms);
  const world = { uptime: () => 0, random: () => 0.5, log: () => undefined, sleep };
  const { promise, resolve } = Promise.withResolvers<void>();
  const queue = op.newQueue(world as unknown as World, 1, async (key) => {
    if (key === 'fine') return resolve();
    if (waits.length === 0) throw new op.ApiError(429, 'TooManyRequests', 'busy', 20_000);
  });
  for (const key of ['busy', 'fine']) queue.add(key);
  queue.start();
  await promise;
  await queue.stop();
  assert.equal(waits, [20_000]);
});
caches('cache: F34: fields that are null, as of charts → absent from there on', () => {
  for (const [, at = ''] of RULES.matchAll(/^ *(\S+) → null \|/gm)) {
    const { spec } = clusterOf(withField(at, null));
    assert.not.match(JSON.stringify(spec), 'null', at);
  }
  const sealed = ['serviceName', 'volumeClaimTemplates', 'template', 'selector'];
  const spec = Object.fromEntries(sealed.map((field) => [field, null]));
  assert.equal(clusterOf({ spec }), clusterOf({}));
  const data = { template: { spec: { volumes: null } }, claimTemplates: null };
  assert.equal(op.revisionOf({ data }), op.revisionOf({ data: { template: { spec: {} } } }));
  const odd = { metadata: null, spec: null, status: null };
  assert.equal([podOf(odd), claimOf(odd)], [podOf({}), claimOf({})]);
});
/** What is in use. */
function heapMb(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed / 2 ** 20;
}
caches('cache: F39: an annotation of ours, large and ever new → nothing of it stays', () => {
  const before = heapMb();
  for (let i = 0; i < 2000; i++)
    metaOf({ metadata: { annotations: { [MARK.claims]: `${i}`.padEnd(16_000, 'x') } } });
  const grown = heapMb() - before;
  assert.ok(grown < 10, `${grown} MB`);
});
if (TESTING) caches.run();

// ═══ SCENARIOS · effects in virtual time ════════════════════════════════════════════════════════
// The whole operator against the embedded API server and its actors. Every scenario ends with
// status equal to spec and an operator that sends nothing (I6); the invariants are checked after
// every step of the simulation, from what the server stored, not from what the operator says.

// ─── Invariants, checked after every step ───────────────────────────────────────────────────────

interface Seen {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly spec: SeenSpec;
  readonly status?: SeenStatus;
  readonly message?: string;
  readonly reason?: string;
  readonly count?: number;
}
/** Of any kind; what is named here is gone through in lists. */
interface SeenSpec extends Raw {
  readonly containers?: readonly Rec[];
  readonly taints?: readonly Rec[];
  readonly volumes?: readonly { readonly persistentVolumeClaim?: { readonly claimName: string } }[];
}
type SeenStatus = Partial<op.Status> & { readonly phase?: string };
type SeenChange = Readonly<{ type: string; object: Seen; previous?: Seen }>;

/** What the checker remembers of the history; never of a decision of the operator. */
interface Ledger extends ReturnType<typeof newLedger> {
  also?: (plural: string, change: SeenChange, who: string) => void; // What else is to be checked.
}
const newLedger = (sim: Sim) => ({
  sim,
  read: new WeakMap<object, number>(), // Changes of each store that were looked at.
  uids: new Map<string, string>(), // Pod or claim → its UID.
  ended: new Set<string>(), // Identities with a retired claim, unless they were restored.
  restored: new Set<string>(), // Identities that a user asked for.
  reasons: new Map<string, string>(), // Identity → the Reason of its end.
  former: new Map<string, string>(), // … of an earlier life, of one without claims.
  seals: new Map<string, readonly string[]>(), // UID of a claim → the claims that its seal names.
  had: new Set<string>(), // Cluster UID and member: it had a pod.
  specs: new Map<string, { readonly at: number; readonly spec: SeenSpec }[]>(), // By cluster.
  recentMs: 120_000, // How long the operator may be ignorant of a changed spec.
  onTheWire: 0, // Members that a former leader may still bring.
  operators: 1, // That run side by side.
  passMs: 3000, // A pass takes no longer from its live reads to its first write.
  restoredAt: -Infinity, // When etcd was put back to an older state.
  late: new Set<string>(), // UIDs of pods that one of two made of what the other had ended.
  upUntil: new Map<string, { readonly at: number; readonly boss: string }>(), // By pod UID.
  chosen: new Map<string, { readonly at: number; readonly ends: boolean }>(), // By the operator.
  revision: 0,
  epoch: sim.state.epoch,
  requests: 0,
});

const seenIn = ({ state }: Sim, plural: string, namespace = ''): readonly Seen[] =>
  objectsOf(state, plural, namespace) as unknown as Seen[];
const seenAt = ({ state }: Sim, plural: string, namespace = '', name = ''): Seen | undefined =>
  objectOf(state, plural, namespace, name) as Seen | undefined;
const labelOf = (o: Seen, key: string): string => o.metadata.labels?.[key] ?? '';
const noteOf = (o: Seen | undefined, key: string): string => o?.metadata.annotations?.[key] ?? '';
const isGoing = (o: Seen | undefined): boolean => o?.metadata.deletionTimestamp !== undefined;
const hasFinished = (o: Seen): boolean => ['Failed', 'Succeeded'].includes(o.status?.phase ?? '');
const isUp = (o: Seen): boolean =>
  !isGoing(o) &&
  (o.status?.conditions ?? []).some((c) => c.type === 'Ready' && c.status === 'True');
const bossOf = (o: Seen) => o.metadata.ownerReferences?.find((ref) => ref['controller'] === true);
const isOurs = (o: Seen): boolean => bossOf(o)?.['kind'] === 'StatefulCluster';
const isForeign = (o: Seen): boolean => bossOf(o) !== undefined && !isOurs(o);
const fullName = (o: Seen): string => `${o.metadata.namespace}/${o.metadata.name}`;
const memberKey = (o: Seen): string =>
  `${o.metadata.namespace}/${labelOf(o, MARK.cluster)}-${labelOf(o, MARK.identity)}`;
const isOperator = (who: string): boolean => who.startsWith('operator');

const UNSURE = '?';
function hold(truth: boolean, law: string, o: Seen, why: string): void {
  if (!truth) throw new Error(`${law} broken by ${o.kind} ${fullName(o)}: ${why}`);
}

/** I9: whatever names the end of an identity gives the same Reason as what named it first. */
function learnReason(ledger: Ledger, key: string, reason: string, o: Seen): void {
  // Two may decide at once, and a restored etcd may have forgotten what was decided.
  const knows = ledger.operators === 1 && ledger.restoredAt === -Infinity;
  const before = knows ? (ledger.reasons.get(key) ?? reason) : reason;
  if (before === UNSURE) return;
  hold(before === reason, 'I9', o, `${key} ended by ${before}, now ${reason}`);
  ledger.reasons.set(key, reason);
}
/** A user made a pod anew under the name of one without claims: it may end anew. */
function beginLife(ledger: Ledger, key: string): void {
  const { reasons, former } = ledger;
  const before = reasons.get(key) ?? UNSURE;
  if (before === UNSURE || ownClaims(ledger, key).length > 0) return;
  former.set(key, before);
  reasons.delete(key);
}
/** A restored etcd lacks what was written since; who asks an old view may not know of it yet. */
const isLost = (ledger: Ledger, ms = 70_000) => ledger.sim.uptime() - ledger.restoredAt < ms;

const claimsIn = ({ spec }: Seen): readonly string[] =>
  (spec.volumes ?? []).flatMap((volume) => volume.persistentVolumeClaim?.claimName ?? []);
/** Without our labels and a claim that is there it is hidden from whoever did not know it. */
const isHidden = ({ sim }: Ledger, pod: Seen): boolean => {
  const space = pod.metadata.namespace;
  const isThere = (name: string) => seenAt(sim, 'persistentvolumeclaims', space, name);
  return !labelOf(pod, MARK.cluster) && !claimsIn(pod).some(isThere);
};
const isMade = (o: Seen): boolean => o.metadata.annotations?.[MARK.claims] !== undefined;
const markOf = (o: Seen | undefined): string => noteOf(o, MARK.retired);
/** Claims of an identity that are the operator's to change. */
const ownClaims = ({ sim }: Ledger, key: string): readonly Seen[] =>
  seenIn(sim, 'persistentvolumeclaims', key.split('/')[0]).filter(
    (o) => memberKey(o) === key && isMade(o) && !isForeign(o),
  );
/** Members of a cluster that hold a place: by a live pod, or by a claim that is not marked. */
function liveMembers(ledger: Ledger, boss: Partial<ObjectMeta>): ReadonlySet<string> {
  const { uid, name, namespace } = boss;
  const isOwn = (o: Seen): boolean => !bossOf(o) || bossOf(o)?.['uid'] === uid;
  const claims = seenIn(ledger.sim, 'persistentvolumeclaims', namespace).filter(
    (o) => labelOf(o, MARK.cluster) === name && isMade(o) && isOwn(o) && !isGoing(o) && !markOf(o),
  );
  const pods = seenIn(ledger.sim, 'pods', namespace).filter(
    (o) => bossOf(o)?.['uid'] === uid && !isGoing(o) && !hasFinished(o) && !isHidden(ledger, o),
  );
  const all = [...claims.map(memberKey), ...pods.map(fullName)];
  return new Set(all.filter((key) => !ledger.ended.has(key)));
}

function obeyPod(ledger: Ledger, { type, object, previous }: SeenChange, who: string): void {
  const key = fullName(object);
  const boss = `${bossOf(object)?.['uid']}`;
  if (previous && isUp(previous)) {
    const was = { at: ledger.sim.uptime(), boss: `${bossOf(previous)?.['uid']}` };
    ledger.upUntil.set(object.metadata.uid, was);
  }
  if (isOperator(who) && previous) {
    hold(!isForeign(previous), 'I8', object, 'it has another controller');
    const ends = !isGoing(previous) && (type === 'DELETED' || isGoing(object));
    if (ends) checkEndOfPod(ledger, previous);
    // An image that admission pinned at a patch of labels is no choice of the operator.
    const asked = ({ spec }: Seen): string => JSON.stringify(spec).replaceAll('@sha"', '"');
    const changes = asked(object) !== asked(previous);
    const isFirst = noteOf(previous, MARK.inPlace) === '';
    if (!isGoing(object) && changes && isFirst) checkBudget(ledger, previous, 0, false);
  }
  if (type === 'ADDED' && !isOperator(who)) beginLife(ledger, key);
  if (!isOurs(object)) return;
  const [id = '', reason = ''] = noteOf(object, MARK.replaces).split(' ');
  const cluster = labelOf(object, MARK.cluster);
  if (reason && type === 'ADDED')
    learnReason(ledger, `${object.metadata.namespace}/${cluster}-${id}`, reason, object);
  ledger.had.add(`${boss} ${key}`);
  if (type === 'ADDED' && isOperator(who)) checkBirth(ledger, object);
}

const clusterOfPod = ({ sim }: Ledger, o: Seen): Seen | undefined =>
  seenAt(sim, 'statefulclusters', o.metadata.namespace, labelOf(o, MARK.cluster));
type Rolling = Partial<op.Spec['updateStrategy']['rollingUpdate']>;
const specOfUpdate = (spec: SeenSpec | undefined): Rolling =>
  spec?.updateStrategy?.rollingUpdate ?? {};
/** The most that any spec of a scenario allows beside the replicas. */
const surgeIn = (spec: SeenSpec | undefined): number =>
  op.scaledValue(specOfUpdate(spec).maxSurge ?? 0, spec?.replicas ?? 1, 'up');

/** I1: a pod comes of an identity that is not over, on its own claims; without claims once only.
 *  I2: its claims are of that identity, nobody else who lives has its index. I4: none too many. */
function checkBirth(ledger: Ledger, pod: Seen): void {
  const key = fullName(pod);
  const { namespace = '' } = pod.metadata;
  hold(memberKey(pod) === key, 'I1', pod, 'its name is not that of its identity');
  const former = ledger.uids.get(`pods ${key}`) ?? pod.metadata.uid;
  const isFirst = former === pod.metadata.uid;
  hold(isFirst || claimsIn(pod).length > 0, 'I1', pod, `without claims, it had pod ${former}`);
  ledger.uids.set(`pods ${key}`, pod.metadata.uid);
  // Of two that overlap, one may be late: then its pod is deleted, or status never equals spec.
  const isLate = ledger.operators > 1 || ledger.onTheWire > 0;
  const own = ownClaims(ledger, key);
  const isOver = ledger.ended.has(key) || own.some((o) => markOf(o));
  // Of two marks etcd may have lost the first: what the oldest does not carry counts for nothing.
  const age = ({ metadata }: Seen): string => `${metadata.creationTimestamp} ${metadata.name}`;
  const [oldest] = own.toSorted((a, b) => (age(a) < age(b) ? -1 : 1));
  const isHalf = ledger.restoredAt > -Infinity && oldest !== undefined && !markOf(oldest);
  hold(isLate || !isOver || isHalf || isLost(ledger), 'I1', pod, 'its claims were retired');
  if (isOver) ledger.late.add(pod.metadata.uid);
  for (const name of claimsIn(pod)) {
    const claim = seenAt(ledger.sim, 'persistentvolumeclaims', namespace, name);
    const isOwn = !claim || (memberKey(claim) === key && !isForeign(claim) && isMade(claim));
    hold(isOwn || isLost(ledger), 'I2', pod, `it mounts ${name}`);
  }
  checkIndex(ledger, pod);
  // It may be for a former object of this name, as it was read.
  const uid = `${bossOf(pod)?.['uid']}`;
  const specs = recentSpecs(ledger, uid);
  if (specs.length === 0 || isLost(ledger)) return;
  const wanted = Math.max(...specs.map(({ replicas = 1 }) => replicas));
  const most = (wanted + Math.max(...specs.map(surgeIn))) * ledger.operators + ledger.onTheWire;
  const { size } = liveMembers(ledger, { namespace, name: labelOf(pod, MARK.cluster), uid });
  hold(size <= most, 'I4', pod, `${size} live members of ${wanted}`);
}
function checkIndex(ledger: Ledger, object: Seen): void {
  const index = labelOf(object, MARK.index);
  const boss = clusterOfPod(ledger, object);
  if (!index || !boss || ledger.operators > 1 || isLost(ledger, 120_000)) return;
  const live = liveMembers(ledger, boss.metadata);
  const all = ['pods', 'persistentvolumeclaims'].flatMap((plural) =>
    seenIn(ledger.sim, plural, object.metadata.namespace),
  );
  const same = all.filter((o) => labelOf(o, MARK.index) === index && live.has(memberKey(o)));
  const others = same.filter((o) => memberKey(o) !== memberKey(object)).map(fullName);
  hold(others.length === 0, 'I2', object, `${others.join(' ')} has index ${index} too`);
}

/** I10: whose pod the operator deletes is over, by the marks on its claims, or comes back, as a
 *  mark on the pod says before. I5 of who is taken down to come back, or ends without claims. */
function checkEndOfPod(ledger: Ledger, pod: Seen): void {
  const key = fullName(pod);
  const returns = noteOf(pod, MARK.returns);
  const mounted = ownClaims(ledger, key).filter((o) => claimsIn(pod).includes(o.metadata.name));
  const left = mounted.filter((o) => !isGoing(o) && !markOf(o));
  const boss = bossOf(pod)?.['uid'] ?? clusterOfPod(ledger, pod)?.metadata.uid; // It may be off.
  const specs = recentSpecs(ledger, `${boss}`);
  const isOver = mounted.length > 0 && left.length === 0;
  if (claimsIn(pod).length > 0 && !isOver) {
    const isMarked = returns !== '' || left.length === 0 || isLost(ledger);
    hold(isMarked, 'I10', pod, 'it is deleted without a mark');
    hold(returns !== 'Returned' || hasFinished(pod), 'I10', pod, 'it is deleted to come back');
    const suspends = specs.some(({ suspend }) => suspend);
    hold(returns !== 'Suspended' || suspends, 'I10', pod, 'nobody suspends it');
    if (returns === 'Recreated') checkBudget(ledger, pod, 0);
  }
  const reason = ledger.reasons.get(key) ?? '';
  // The status may yet tell that it was scaled in.
  if (reason === '' && new Set(specs.map(({ replicas = 1 }) => replicas)).size > 1) return;
  if (claimsIn(pod).length > 0 || !['', 'ReplaceRequested', 'Updated'].includes(reason)) return;
  const node = seenAt(ledger.sim, 'nodes', '', nodeOfPod(pod));
  const isAway = !node || (node.spec.taints ?? []).length > 0;
  if (!isAway) checkBudget(ledger, pod, noteOf(pod, MARK.replace) === 'true' ? 1 : 0);
}
/** I5: what was Available goes by choice only while enough others are, or were for the pass. */
function checkBudget(ledger: Ledger, pod: Seen | undefined, least: number, ends = true): void {
  const boss = pod && clusterOfPod(ledger, pod);
  const uid = boss?.metadata.uid ?? '';
  if (!boss || bossOf(pod)?.['uid'] !== uid) return;
  const { sim, passMs, upUntil, chosen } = ledger;
  const isRecent = (at = -Infinity): boolean => at >= sim.uptime() - passMs;
  const projected = podOf(pod as unknown as Raw);
  if (!op.isAvailable(projected, boss.spec.minReadySeconds ?? 0, sim.now())) return;
  if (sim.now() - (projected.readySinceMs ?? 0) < passMs) return; // It was not, for the pass.
  if (!op.isApplied(projected)) return; // It was taken down before, by a patch.
  chosen.set(pod.metadata.uid, { at: sim.uptime(), ends });
  const wasUp = (o: Seen): boolean => {
    const was = chosen.get(o.metadata.uid);
    const isChosen = isRecent(was?.at);
    if (isUp(o) && op.isApplied(podOf(o as unknown as Raw))) return !isChosen || was?.ends !== true;
    return !isChosen && isRecent(upUntil.get(o.metadata.uid)?.at);
  };
  const all = seenIn(sim, 'pods', pod.metadata.namespace);
  const isOther = (o: Seen): boolean => o.metadata.uid !== pod.metadata.uid;
  const others = all.filter((o) => bossOf(o)?.['uid'] === uid && isOther(o));
  const there = new Set([...others, pod].map((o) => o.metadata.uid));
  const gone = [...upUntil].filter(
    ([id, was]) =>
      !there.has(id) && was.boss === uid && isRecent(was.at) && !isRecent(chosen.get(id)?.at),
  );
  const up = others.filter(wasUp).length + gone.length;
  const specs = recentSpecs(ledger, uid);
  if (specs.some(({ suspend }) => suspend)) return;
  const floors = specs.map((spec) => {
    const floor = surgeIn(spec) > 0 ? least : 1;
    const given = specOfUpdate(spec).maxUnavailable ?? 1;
    const { replicas = 1 } = spec;
    return replicas - Math.max(floor, op.scaledValue(given, replicas, 'down'));
  });
  hold(up >= Math.min(...floors), 'I5', pod, `${up} others are there, of ${floors.join(', ')}`);
}

const podOfMember = ({ sim }: Ledger, claim: Seen): Seen | undefined =>
  seenAt(sim, 'pods', ...memberKey(claim).split('/'));
/** The only witness of its end went before a status told of it: whatever is told then may differ
 *  from what the mark said, whose answer may have been lost. */
function isUntold(ledger: Ledger, claim: Seen): boolean {
  const all = seenIn(ledger.sim, 'persistentvolumeclaims', claim.metadata.namespace);
  const isOther = (o: Seen): boolean => memberKey(o) === memberKey(claim) && markOf(o) !== '';
  const told = clusterOfPod(ledger, claim)?.status?.retired ?? [];
  return !all.some(isOther) && !told.some((r) => r.identity === labelOf(claim, MARK.identity));
}
function obeyClaim(ledger: Ledger, { type, object, previous }: SeenChange, who: string): void {
  const key = memberKey(object);
  const [mark, former] = [markOf(object), markOf(previous)];
  if (noteOf(object, MARK.restore) === 'true') ledger.restored.add(key);
  // What was lost before a restore is missed after it.
  const kept = former && !mark ? (ledger.seals.get(object.metadata.uid) ?? []) : [];
  ledger.seals.set(object.metadata.uid, [...kept, ...noteOf(object, MARK.claims).split(' ')]);
  if (former && !mark && type !== 'DELETED') {
    hold(!isOperator(who) || ledger.restored.has(key), 'I1', object, 'nobody asked to restore it');
    ledger.ended.delete(key);
    ledger.reasons.delete(key);
  }
  if (mark && (!former || previous === object) && isMade(object)) {
    ledger.ended.add(key);
    if (isOperator(who)) learnReason(ledger, key, mark, object);
  }
  if (type === 'DELETED' && isUntold(ledger, object)) ledger.reasons.set(key, UNSURE);
  if (!isOperator(who)) return;
  if (!previous) return checkClaimBirth(ledger, object);
  const isDoor = former !== '' && noteOf(previous, MARK.restore) === 'true';
  hold(!isForeign(previous), 'I8', object, 'it has another controller');
  hold(isMade(previous) || isDoor, 'I8', object, 'others made it');
  const policies = [previous, object].map((o) => noteOf(o, MARK.retiredPolicy));
  const isKept = !former || !mark || `${former} ${policies[0]}` === `${mark} ${policies[1]}`;
  hold(isKept, 'I9', object, `the mark ${former} became ${mark}`);
  if (!former && mark) checkMark(ledger, object);
  if (isGoing(previous) || !(type === 'DELETED' || isGoing(object))) return;
  // Of two that overlap, one may be making just now what the other takes back: nothing is in it.
  const isLate = isLost(ledger) || (ledger.operators > 1 && isUnbound(previous));
  const pod = podOfMember(ledger, object);
  const isLatePod = ledger.late.has(`${pod?.metadata.uid}`);
  hold(!pod || !isOurs(pod) || isLate || isLatePod, 'I3', object, 'its pod is there');
  const isOver = ownClaims(ledger, key).every((o) => markOf(o) || isGoing(o));
  hold(former !== '' && (isOver || isLate), 'I3', object, 'its identity is not over');
  const isDelete = noteOf(previous, MARK.retiredPolicy) === 'Delete';
  hold(isDelete || isUnbound(previous), 'I3', object, 'it was not marked Delete');
}
const isUnbound = (claim: Seen): boolean => op.isNeverBound(claimOf(claim as unknown as Raw));
/** I1: what an identity lost, as the seal on another claim of it says, does not come again. */
function checkClaimBirth(ledger: Ledger, claim: Seen): void {
  const named = ownClaims(ledger, memberKey(claim)).some((o) =>
    ledger.seals.get(o.metadata.uid)?.includes(claim.metadata.name),
  );
  hold(!named || isLost(ledger), 'I1', claim, 'its identity had that claim before');
  // Of two that overlap, one may have scaled in what the other is just making: nothing is in it.
  const isOver = ledger.ended.has(memberKey(claim)) && ledger.operators === 1;
  hold(!isOver, 'I1', claim, 'its identity is over');
  checkIndex(ledger, claim);
}
/** The policy of a mark is that of its moment; what a former cluster kept is kept. I5 by choice. */
function checkMark(ledger: Ledger, claim: Seen): void {
  const reason = markOf(claim) as op.EndReason;
  const boss = clusterOfPod(ledger, claim);
  const { uid = '', creationTimestamp } = boss?.metadata ?? {};
  const isOlder = `${claim.metadata.creationTimestamp}` < `${creationTimestamp}`;
  const isKept = isOlder && !ledger.had.has(`${uid} ${memberKey(claim)}`);
  const moment = isKept ? 'Retain' : op.ENDS[reason].policy;
  const asks = ({ persistentVolumeClaimRetentionPolicy: all }: SeenSpec): string =>
    moment === 'Retain' ? moment : (all?.[moment] ?? 'Retain');
  const allowed = recentSpecs(ledger, uid).map(asks);
  const policy = noteOf(claim, MARK.retiredPolicy);
  const isFit = allowed.includes(policy) || (isOlder && policy === 'Retain');
  const madeAt = ledger.specs.get(uid)?.[0]?.at ?? 0; // It may be another since it was read live.
  const isNew = madeAt > ledger.sim.uptime() - ledger.passMs || isLost(ledger, ledger.passMs);
  const why = `marked ${policy} for ${reason}, of ${allowed.join(', ')}`;
  hold(!boss || isNew || isFit, 'I3', claim, why);
  const marked = ownClaims(ledger, memberKey(claim)).filter((o) => markOf(o));
  if (marked.length > 1) return; // It was chosen with the first.
  const asked = reason === 'ReplaceRequested';
  if (asked || reason === 'Updated') checkBudget(ledger, podOfMember(ledger, claim), asked ? 1 : 0);
}

function obeyCluster(ledger: Ledger, { type, object, previous }: SeenChange, who: string): void {
  const { uid, namespace } = object.metadata;
  const list = ledger.specs.get(uid) ?? [];
  const isNew = object.metadata.generation !== previous?.metadata.generation;
  if (isNew || list.length === 0 || previous === object)
    // … or it came with a restored etcd.
    list.push({ at: ledger.sim.uptime(), spec: object.spec });
  ledger.specs.set(uid, list);
  if (!isOperator(who)) return;
  const parts = (o: Seen | undefined): string => {
    const { generation, labels, annotations, finalizers, ownerReferences } = o?.metadata ?? {};
    return JSON.stringify([generation, labels, annotations, finalizers, ownerReferences]);
  };
  const kept = type === 'MODIFIED' && parts(previous) === parts(object);
  hold(kept, 'I7', object, 'spec or metadata was written');
  for (const { identity, reason } of object.status?.retired ?? []) {
    const key = `${namespace}/${object.metadata.name}-${identity}`;
    // It tells of an earlier life as long as nothing else does.
    if (!ledger.reasons.has(key) && ledger.former.get(key) === reason) continue;
    // It says what a pass saw: by now a restore may have ended what it tells.
    if (ownClaims(ledger, key).every(markOf)) learnReason(ledger, key, reason, object);
  }
}

function obeyNews(ledger: Ledger, { object }: SeenChange, who: string): void {
  if (!isOperator(who)) return;
  const cluster = object.metadata.name.split('.')[0];
  for (const [, id] of (object.message ?? '').matchAll(/replaced (\S+) by/g)) {
    const key = `${object.metadata.namespace}/${cluster}-${id}`;
    learnReason(ledger, key, object.reason ?? '', object);
  }
}

type Specs = readonly SeenSpec[];
/** The specs in force lately: the operator may not have heard of the latest. */
function recentSpecs(ledger: Ledger, uid: string, ms = ledger.recentMs): Specs {
  const list = ledger.specs.get(uid) ?? [];
  const since = ledger.sim.uptime() - ms;
  return list.filter((_, i) => (list[i + 1]?.at ?? Infinity) >= since).map(({ spec }) => spec);
}

const laws = Object.entries({
  'enge.me/statefulclusters': obeyCluster,
  '/persistentvolumeclaims': obeyClaim,
  '/pods': obeyPod,
  '/events': obeyNews,
  '/nodes': (): void => undefined, // Only `also` looks at them.
});
const children = 'pods|persistentvolumeclaims|controllerrevisions|events|leases';
const mayWrite = new RegExp(`/(${children})(/|\\?|$)|/[a-z0-9-]+/status\\?`);

/** One step lands one request at most, so the last request is the writer of what is new. */
function checkStep(ledger: Ledger): void {
  const { sim } = ledger;
  const { state, requests } = sim;
  const request = requests.length > ledger.requests ? requests.at(-1) : undefined;
  ledger.requests = requests.length;
  if (request && isOperator(request.who) && !['GET', 'WATCH'].includes(request.method))
    if (!mayWrite.test(request.path)) throw new Error(`I7 broken by ${JSON.stringify(request)}`);
  if (state.revision === ledger.revision && state.epoch === ledger.epoch) return;
  const isRestored = state.epoch !== ledger.epoch;
  Object.assign(ledger, { revision: state.revision, epoch: state.epoch });
  if (isRestored) {
    ledger.ended.clear();
    ledger.reasons.clear();
    ledger.restoredAt = sim.uptime();
  }
  const who = (!isRestored && request?.who) || 'test';
  for (const [name, check] of laws) {
    const plural = name.split('/')[1] ?? '';
    const store = state.resources.get(name)?.store;
    const from = Math.max(0, (store ? (ledger.read.get(store) ?? 0) : 0) - (store?.first ?? 0));
    // When etcd went back in time, what is live is read anew; what ever happened stays known.
    const changes = isRestored
      ? seenIn(sim, plural).map((object) => ({ type: 'MODIFIED', object, previous: object }))
      : ((store?.log.slice(from) ?? []) as unknown as readonly SeenChange[]);
    for (const change of changes) {
      check(ledger, change, who);
      ledger.also?.(plural, change, who);
    }
    if (store) ledger.read.set(store, store.first + store.log.length);
  }
}

// ─── The scenario DSL ───────────────────────────────────────────────────────────────────────────

interface Setting {
  readonly replicas?: number;
  readonly nodes?: number;
  readonly spec?: Rec; // Laid over the example's spec.
  readonly faults?: Faults; // Of the operator's process; may be changed later.
  readonly actors?: Partial<ActorOptions>;
  readonly wait?: boolean; // false: begin before the members are Ready.
  readonly ends?: 'settled' | 'open'; // open: this scenario does not end in convergence.
  readonly keeps?: 'identities' | 'pods'; // What is at its end as at its beginning.
}

/** Nodes, and objects of the namespace default: what a simulated server stores, or watches told. */
interface Sights {
  readonly objects: (plural: string) => readonly Seen[]; // In the order of their names.
  readonly logged: (reason: string) => string; // What the operator's log says of it.
}
const space = '/api/v1/namespaces/default';
const coder = '/apis/enge.me/v1alpha1/namespaces/default/statefulclusters/coder';

const six: Setting = { nodes: 6 };
const both = { whenScaled: 'Delete', whenLost: 'Delete', whenReplaced: 'Delete' };
const live: Setting = { nodes: 6, faults: { cut: false } }; // Its streams notice silence.
const five: Setting = { replicas: 5, nodes: 6 };
const onData = [{ name: 'data', mountPath: '/d' }];
const podSpec = { containers: [{ name: 'c', image: 'img:1', volumeMounts: onData }] };
/** A template whose one container has these fields beside the usual ones. */
const template = (container: Rec = {}, metadata: Rec = {}): Rec => ({
  template: { metadata, spec: { containers: [{ ...podSpec.containers[0], ...container }] } },
});
const bare = { template: { spec: { containers: [{ name: 'c', image: 'img:1' }] } } };
const localClaim = (storage = '1Gi', storageClassName?: string): Rec => ({
  metadata: { name: 'data' },
  spec: {
    ...(storageClassName && { storageClassName }),
    accessModes: ['ReadWriteOnce'],
    resources: { requests: { storage } },
  },
});
const netClaim = (storage = '1Gi', name = 'net-sim'): Rec => localClaim(storage, name);

const inTwo = {
  volumeClaimTemplates: [localClaim(), { ...localClaim(), metadata: { name: 'logs' } }],
  ...template({ volumeMounts: ['data', 'logs'].map((name) => ({ name, mountPath: `/${name}` })) }),
};
const roll = (rollingUpdate: Rec, type = 'RollingUpdate'): Rec => ({
  updateStrategy: { type, rollingUpdate },
});

/** The example object of the original project. */
function exampleCluster(spec: Rec = {}, name = 'coder'): Rec {
  const selector = { matchLabels: { app: name, 'enge.me/statefulcluster': name } };
  const usual = { replicas: 3, selector, template: { spec: podSpec } };
  return {
    apiVersion: 'enge.me/v1alpha1',
    kind: 'StatefulCluster',
    metadata: { name, namespace: 'default' },
    spec: { ...usual, volumeClaimTemplates: [localClaim()], ...spec },
  };
}

/** What is under test. */
type Code = Pick<typeof op, 'runOperator' | 'runElected'>;
/** The operator's process, with a Lease or without. It dies loudly: in production that would be a
 *  crash loop. To lose the Lease is its only other end, which is told. */
function startOperator(
  t: Scene,
  who = 'operator',
  faults = t.faults,
  lease?: op.Elected['lease'],
  onLost = (): void => undefined,
): void {
  const world = t.sim.world(who, faults);
  const stop = (t.operator = new AbortController());
  t.stops.push(stop);
  const fall = (why: string): void => {
    t.sim.afterStep = () => {
      throw new Error(why);
    };
  };
  const send: World['send'] = (request) => {
    const { method, path, body = {} } = request;
    const { preconditions, metadata } = body as { preconditions?: Rec; metadata?: Rec };
    const isOfClaim = path.includes('/persistentvolumeclaims/');
    const isNamed = preconditions?.['uid'] && (!isOfClaim || preconditions['resourceVersion']);
    if (method === 'DELETE' && !isNamed) fall(`I8 broken: ${path} is deleted as whatever it is`);
    const isSure = metadata?.['uid'] && metadata['resourceVersion'];
    if (method === 'PATCH' && (isOfClaim || path.includes('/pods/')) && !isSure)
      fall(`I8 broken: ${path} is patched as whatever it is`);
    return world.send(request);
  };
  const options = { namespaces: [], selector: t.selector, workers: 4 };
  const { runOperator, runElected } = t.code;
  const end = lease
    ? runElected({ ...world, send }, { ...options, lease }, stop.signal)
    : runOperator({ ...world, send }, options, stop.signal);
  end.then(
    () => (t.ended = true),
    (error: unknown) => {
      if (lease && /^lost the Lease/.test(wordsOf(error))) onLost();
      else fall(`the operator dies: ${String(error)}`);
    },
  );
}

function newActors(sim: Sim, setting: Setting): Actors {
  const nodes = Array.from({ length: setting.nodes ?? 4 }, (_, i) => `n${i}`);
  const { signal } = new AbortController();
  return startActors(sim.world('actors'), { nodes, ...setting.actors }, signal);
}
/** A running simulation: server, actors, operator, and one cluster named coder. */
type Scene = ReturnType<typeof newScene>;
function newScene(setting: Setting, seed = 1, code: Code = op) {
  const sim = newSim(seed, crdOnly());
  const actors = newActors(sim, setting);
  const ledger: Ledger = newLedger(sim);
  sim.afterStep = () => checkStep(ledger);
  return {
    ...{ sim, actors, ledger, code },
    faults: { ...setting.faults } as Faults, // Of the operator's process.
    runners: [] as Runner[], // Processes that want the Lease.
    operator: new AbortController(),
    stops: [] as AbortController[], // Of every operator there was.
    ended: false, // runOperator returned.
    selector: '', // Of the operator that is started next.
    objects: (plural: string) => seenIn(sim, plural, plural === 'nodes' ? '' : 'default'),
    logged: (reason: string): string =>
      json(sim.logs.filter((l) => l.message === reason).map((l) => l.fields)),
  };
}

async function start(setting: Setting = {}): Promise<Scene> {
  const t = newScene(setting);
  startOperator(t);
  await t.sim.run(2000);
  const { replicas = 3, spec = {} } = setting;
  apply(t, exampleCluster({ replicas, ...spec }));
  if (setting.wait !== false) await until(t, 'all are Ready', () => pendingOf(t) === '');
  return t;
}

/** A request of the test's user; it must succeed. */
function apply(t: Scene, object: Rec): Seen {
  const { name, namespace } = object['metadata'] as { name: string; namespace?: string };
  const group = `${object['apiVersion']}`.includes('/') ? '/apis/' : '/api/';
  const plural = `${object['kind']}`.toLowerCase() + 's';
  const where = namespace ? `/namespaces/${namespace}` : '';
  return must(t, 'POST', `${group}${object['apiVersion']}${where}/${plural}`, object, name);
}
function must(t: Scene, method: 'POST' | 'PATCH' | 'DELETE', path: string, body?: Rec, what = '') {
  const answer = t.sim.api(method, path, body);
  if (answer.status >= 300)
    throw new Error(`${method} ${path} ${what}: ${JSON.stringify(answer.body)}`);
  return answer.body as Seen;
}
const edit = (t: Scene, spec: Rec): Seen => must(t, 'PATCH', coder, { spec });
const annotate = (t: Scene, path: string, annotations: Rec): Seen =>
  must(t, 'PATCH', path, { metadata: { annotations } });
const removePod = (t: Scene, pod: Seen | undefined, options: Rec = {}): Seen =>
  must(t, 'DELETE', `${space}/pods/${pod?.metadata.name}`, options);
/** A human says that this node is off for good. */
function outOfService(t: Scene, node: string): void {
  t.actors.kill(node);
  const taints = [{ key: 'node.kubernetes.io/out-of-service', effect: 'NoExecute' }];
  must(t, 'PATCH', `/api/v1/nodes/${node}`, { spec: { taints } });
}
const failPod = (t: Scene, pod: Seen, reason?: string): void =>
  t.actors.fail('default', pod.metadata.name, reason);

const listed = ({ objects }: Sights, plural: string): readonly Seen[] => objects(plural);
const clusterNow = (t: Sights, name = 'coder'): Seen =>
  listed(t, 'statefulclusters').find((o) => o.metadata.name === name) as Seen;
/** Pods that are neither stopping nor at their end, oldest first. */
const livePods = (t: Sights, name = 'coder'): Seen[] =>
  listed(t, 'pods').filter(
    (o) => isOurs(o) && labelOf(o, MARK.cluster) === name && !isGoing(o) && !hasFinished(o),
  );
function firstPod(t: Scene): Seen {
  const [pod] = livePods(t);
  assert.ok(pod, 'there is a live pod');
  return pod as Seen;
}
const nodeOfPod = (pod: Seen): string => pod.spec.nodeName ?? '';
const identityIn = (o: Seen): string => labelOf(o, MARK.identity);
const common = (now: readonly string[], before: readonly string[]): readonly string[] =>
  now.filter((one) => before.includes(one));
const uidsOf = (t: Sights, name?: string): string[] => livePods(t, name).map((o) => o.metadata.uid);
const identitiesOf = (t: Sights, name?: string): string[] => livePods(t, name).map(identityIn);
/** UID of the live pod that has the identity of this one, or ''. */
const uidOfIdentity = (t: Sights, old: Seen): string =>
  livePods(t).find((o) => identityIn(o) === identityIn(old))?.metadata.uid ?? '';
const claimsOf = (t: Sights, identity = ''): Seen[] =>
  listed(t, 'persistentvolumeclaims').filter((o) => [identityIn(o), ''].includes(identity));
const claimUids = (t: Sights): string[] => claimsOf(t).map((o) => o.metadata.uid);
const conditionOf = (t: Sights, type: string, name = 'coder'): op.Condition | undefined =>
  clusterNow(t, name)?.status?.conditions?.find((c) => c.type === type);
const newsOf = (t: Sights, reason: string) =>
  listed(t, 'events').filter((o) => o.reason === reason);

/** Requests of the operator since the mark, by verb and resource. */
function requestsSince(t: Scene, mark: number): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { who, method, path } of t.sim.requests.slice(mark)) {
    if (!isOperator(who) || method === 'WATCH' || path.includes('/leases')) continue;
    const bare = path.replace(/\?.*/, '').replace(/.*\/namespaces\/[^/]+\//, '');
    const key = `${method} ${bare.endsWith('/status') ? 'status' : bare.split('/')[0]}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

/** On a silent node: nobody there will stop it. */
function isStuck(t: Sights, pod: Seen): boolean {
  const node = listed(t, 'nodes').find((o) => o.metadata.name === nodeOfPod(pod));
  return node !== undefined && !isUp(node);
}

/** What is still to happen until status equals spec, as a sentence; '' when nothing is. */
function pendingOf(t: Sights, name = 'coder'): string {
  const cluster = clusterNow(t, name) as Seen | undefined;
  if (!cluster) return `there is no cluster ${name}`;
  const { replicas = 0 } = cluster.spec;
  const pods = livePods(t, name);
  const up = pods.filter(isUp).length;
  if (pods.length !== replicas || up !== replicas)
    return `${pods.length} live pods, ${up} Ready, of ${replicas}`;
  const { status } = cluster;
  const counts = [status?.replicas, status?.readyReplicas, status?.availableReplicas];
  if (counts.some((n) => n !== replicas)) return `the status says ${counts.join(', ')}`;
  if (status?.observedGeneration !== cluster.metadata.generation) return 'the status is old';
  const ready = conditionOf(t, 'Ready', name);
  if (ready?.status !== 'True') return `Ready is ${ready?.status}: ${ready?.message}`;
  const leaving = listed(t, 'pods').find((o) => isOurs(o) && isGoing(o) && !isStuck(t, o));
  if (leaving) return `${leaving.metadata.name} is leaving`;
  const names = new Set(listed(t, 'pods').map((o) => o.metadata.name));
  const claims = listed(t, 'persistentvolumeclaims');
  const wanted = new Set(claims.filter(restoring).map(memberKey));
  for (const claim of claims) {
    if (labelOf(claim, MARK.cluster) !== name || isForeign(claim) || !isMade(claim)) continue;
    if (names.has(`${name}-${identityIn(claim)}`)) continue;
    const policy = noteOf(claim, MARK.retiredPolicy);
    if (wanted.has(memberKey(claim))) continue; // It waits for room.
    if (policy !== 'Retain') return `claim ${claim.metadata.name} is left, ${policy || 'unmarked'}`;
  }
  return '';
}

/** Runs until it holds; looks only when something was written. */
async function until(t: Scene, what: string, holds: () => boolean, limitMs = 900_000) {
  let looked = -1;
  const did = await t.sim.run(() => {
    if (looked === t.sim.requests.length && looked >= 0) return false;
    looked = t.sim.requests.length;
    return holds();
  }, limitMs);
  if (did || holds()) return;
  const pods = listed(t, 'pods').map((o) => `${o.metadata.name} ${o.status?.phase} ${isUp(o)}`);
  const logs = t.sim.logs.filter((l) => isOperator(l.who)).slice(-6);
  const last = logs.map((l) => `${l.at} ${l.message} ${JSON.stringify(l.fields)}`);
  const why = `not within ${limitMs / 1000} s: ${what}; ${pendingOf(t)}`;
  throw new Error([why, ...pods, ...last].join('\n'));
}

/** I6: status equals spec in bounded time, and then nothing is sent but watches and the Lease. */
async function settle(t: Scene, limitMs = 900_000): Promise<void> {
  await until(t, 'status equals spec', () => pendingOf(t) === '', limitMs);
  await t.sim.run(15_000); // What was about to be written may still be.
  const mark = t.sim.requests.length;
  await t.sim.run(75_000);
  assert.is(pendingOf(t), '', 'it stays so');
  assert.equal(requestsSince(t, mark), {}, 'I6: no request at rest');
}

/** Where the one Reason is still missing or another: pod, status, Event, log and claims (I9). */
function untold(t: Sights, old: Seen, reason: string): string {
  const [cluster, identity] = [labelOf(old, MARK.cluster), identityIn(old)];
  const isHeir = (o: Seen): boolean => noteOf(o, MARK.replaces) === `${identity} ${reason}`;
  const [heir, ...more] = livePods(t, cluster).filter(isHeir);
  const entry = clusterNow(t, cluster).status?.retired?.find((r) => r.identity === identity);
  const words = `replaced ${identity} by`;
  const gaps: Readonly<Record<string, boolean>> = {
    'one pod that replaces it': !heir || more.length > 0,
    'status.retired': entry?.reason !== reason,
    'status.retired.replacedBy': entry?.replacedBy !== (heir && identityIn(heir)),
    'an Event': !newsOf(t, reason).some((o) => o.message?.includes(words)),
    'a line of the log': !t.logged(reason).includes(words),
    'the mark of each claim': claimsOf(t, identity).some((o) => markOf(o) !== reason),
  };
  return Object.keys(gaps)
    .filter((what) => gaps[what])
    .join(', ');
}
/** One new identity took the place of `old`, and everything says why in the same word. */
async function replaced(t: Scene, old: Seen, reason: string, limitMs = 900_000): Promise<void> {
  const isDone = (): boolean => pendingOf(t) === '' && !uidOfIdentity(t, old);
  await until(t, `${identityIn(old)} is replaced`, isDone, limitMs);
  await t.sim.run(3000); // The status follows within a second or two.
  assert.is(untold(t, old, reason), '', `${identityIn(old)} ${reason} lacks`);
}

const scenarios = suite('scenario');
const only = new RegExp(process.env['SCENARIO'] ?? '');

/** Registers one: starts the scene, plays it, and asserts convergence and silence at its end. */
function scenario(title: string, setting: Setting, play: (t: Scene) => Promise<void> | void): void {
  if (!only.test(title)) return;
  scenarios(`scenario: ${title}`, async () => {
    const t = await start(setting);
    const [uids, ids, claims] = [uidsOf(t), identitiesOf(t), claimUids(t)];
    await play(t);
    if (setting.ends !== 'open') await settle(t);
    if (setting.keeps) assert.equal([identitiesOf(t), claimUids(t)], [ids, claims]);
    if (setting.keeps === 'pods') assert.equal(uidsOf(t), uids);
    t.operator.abort();
  });
}

const sceneOf = (t: Scene) => {
  const [identities, claims, pods] = [identitiesOf(t), claimUids(t), uidsOf(t)];
  return { mark: t.sim.requests.length, markedAt: t.sim.uptime(), identities, claims, pods };
};
/** What a scenario in words knows: `it`, the pod that was acted upon last (the eldest of that
 *  moment), and what there was at its beginning, or at the last `mark`. */
type Story = ReturnType<typeof storyOf>;
const storyOf = (t: Scene) => ({
  ...{ t, ...sceneOf(t) }, // Requests are counted from its mark.
  faults: { ...t.faults }, // Of its setting.
  spec: { ...clusterNow(t).spec }, // At its beginning.
  it: livePods(t)[0] as Seen,
  past: undefined as ApiSnapshot | undefined,
  nodes: [] as readonly string[], // That went.
  least: (): number => NaN, // Who were up, since `watch`.
});
/** The process that a letter names. */
function runner({ t }: Story, letter: string): Runner {
  const found = t.runners.find(({ who }) => who === `operator-${letter}`);
  assert.ok(found, `${letter} has come`);
  return found as Runner;
}
const STRIPPED = { metadata: { labels: { [MARK.cluster]: null } } };
const OUTSIDE = { metadata: { labels: { app: 'mine' } } };
const taken = (p: Story): Seen => (p.it = firstPod(p.t));
/** What is counted in words; anything else is a kind of request: `POST pods`. */
type Count = (t: Scene, sent: Record<string, number>, p: Story) => number;
const COUNTS: Readonly<Record<string, Count>> = {
  clusters: (t) => listed(t, 'statefulclusters').length,
  pods: (t) => listed(t, 'pods').length,
  live: (t) => livePods(t).length,
  up: (t) => livePods(t).filter(isUp).length,
  'not up': (t) => listed(t, 'pods').filter((o) => !isUp(o)).length,
  claims: (t) => claimsOf(t).length,
  ended: (t) => claimsOf(t).filter(markOf).length,
  'claims that stay': (t) => claimsOf(t).filter((o) => !isGoing(o) && !isOurs(o)).length,
  placed: (t) => livePods(t).filter(nodeOfPod).length,
  pending: (t) => Number(pendingOf(t) !== ''),
  outdated: (t) => Number(!onUpdate(t) || pendingOf(t) !== ''),
  'of its identity': (t, _, { it }) => Number(uidOfIdentity(t, it) !== ''),
  returned: (t, _, { it }) => Number(![it.metadata.uid, ''].includes(uidOfIdentity(t, it))),
  'of the same identities': (t, _, p) => common(identitiesOf(t), p.identities).length,
  'of the same claims': (t, _, p) => common(claimUids(t), p.claims).length,
  'of the same pods': (t, _, p) => common(uidsOf(t), p.pods).length,
  'without label': (t) =>
    [...listed(t, 'pods'), ...claimsOf(t)].filter((o) => !labelOf(o, MARK.cluster)).length,
  requests: (_, sent) => sumOf(sent),
  'pods ever posted': (t) => requestsSince(t, 0)['POST pods'] ?? 0,
  Leases: (t) => listed(t, 'leases').length,
  tries: (t, _, { mark }) => t.sim.requests.slice(mark).filter((r) => isOperator(r.who)).length,
  'kinds of requests': (_, sent) => Object.keys(sent).length,
};
function counted(p: Story, what: string): number {
  const { t, mark } = p;
  const [, kind, which = ''] =
    /^(writes of|requests of|other requests of|Events of|marked|of) (\w+:?\w*)$/.exec(what) ?? [];
  const own = (from: number) =>
    t.sim.requests.slice(from).filter((r) => r.who === runner(p, which).who);
  if (kind === 'writes of') return writesOf(t, runner(p, which), mark).length;
  if (kind === 'requests of') return own(mark).length;
  if (kind === 'other requests of') return own(0).filter((r) => !isOfLease(r)).length;
  if (kind === 'Events of') return newsOf(t, which).length;
  if (kind === 'marked') return claimsOf(t).filter((o) => markOf(o) === which).length;
  if (kind === 'of') return livePods(t).filter((o) => imageOf(o) === which).length;
  const sent = requestsSince(t, mark);
  return /^[A-Z]+ \w+$/.test(what) ? (sent[what] ?? 0) : explained(COUNTS, what)(t, sent, p);
}
/** When something of a process was, by the clock of the simulation. */
const INSTANTS: Readonly<Record<string, (p: Story, one: Runner) => number | undefined>> = {
  'first request': ({ t, mark }, { who }) =>
    t.sim.requests.slice(mark).find((r) => r.who === who)?.at,
  'first write': ({ t }, one) => writesOf(t, one)[0]?.at,
  'last write': ({ t }, one) => writesOf(t, one).at(-1)?.at,
  'last renewal': ({ t }, { who }) =>
    t.sim.requests.findLast((r) => r.who === who && isOfLease(r) && !isRead(r) && isDone(r))?.at,
  end: (_, { endedAt }) => endedAt,
};
const instantOf = (p: Story, what: string, letter: string): number =>
  explained(INSTANTS, what)(p, runner(p, letter)) ?? NaN;
const NODE_ACTS: Readonly<Record<string, (t: Scene, node: string) => unknown>> = {
  cordon: (t, node) => amendNode(t, node, { unschedulable: true }),
  uncordon: (t, node) => amendNode(t, node, { unschedulable: false }),
  untaint: (t, node) => amendNode(t, node, { taints: [] }),
  remove: (t, node) => t.actors.removeNode(node),
  revive: (t, node) => t.actors.revive(node),
  kill: (t, node) => t.actors.kill(node),
  'shut down': (t, node) => t.actors.drainShutdown(node),
  'put out of service': outOfService,
};
/** The words of a scenario: acts, and findings, which must be so. `#` is a number, `…` any text. */
const STEPS: Readonly<Record<string, (p: Story, ...words: readonly any[]) => unknown>> = {
  '# s': ({ t }, seconds) => t.sim.run(1000 * seconds),
  'every # s for # s: …': (p, every, long, acts) =>
    often(p.t, 1000 * every, 1000 * long, () => doAll(p, acts.split(', '))),
  settle: ({ t }) => settle(t),
  watch: (p) => (p.least = leastReady(p.t)),
  'pods are marked': (p) => (p.pods = uidsOf(p.t)),
  mark: (p) => Object.assign(p, sceneOf(p.t)),
  'replicas #': ({ t }, replicas) => edit(t, { replicas }),
  'edit …': ({ t }, spec) => edit(t, spec),
  'template …': ({ t }, container) => retemplate(t, template(container)),
  'labels …': ({ t }, labels) => retemplate(t, template({}, { labels })),
  'cluster …': ({ t }, metadata) => must(t, 'PATCH', coder, { metadata }),
  touched: ({ t }) => annotate(t, coder, { beat: `${t.sim.uptime()}` }),
  noted: ({ t }) => annotate(t, pathAt(firstPod(t)), { i: `${t.sim.uptime()}` }),
  'all labels go': ({ t }) => {
    for (const kind of ['pods', 'persistentvolumeclaims'])
      for (const { metadata } of listed(t, kind))
        must(t, 'PATCH', `${space}/${kind}/${metadata.name}`, STRIPPED);
  },
  'status …': ({ t }, status) => must(t, 'PATCH', `${coder}/status`, status),
  'the CRD goes': ({ t }) => must(t, 'DELETE', `${crdsAt}/statefulclusters.enge.me`),
  // Of a version to come, which has a field more in spec and status.
  'the CRD comes, newer': ({ t }) => {
    const [crd] = structuredClone(crdOnly()) as any[];
    const { spec, status } = crd.spec.versions[0].schema.openAPIV3Schema.properties;
    for (const part of [spec, status]) part.properties.future = { type: 'string' };
    must(t, 'POST', crdsAt, crd);
  },
  'the cluster goes, …': ({ t }, how) => must(t, 'DELETE', coder, { propagationPolicy: how }),
  'the cluster comes(?:, of #)?': ({ t, spec }, replicas = 3) =>
    apply(t, exampleCluster({ ...spec, replicas })),
  lose: (p) => removePod(p.t, taken(p)),
  'lose at once': (p) => removePod(p.t, taken(p), { gracePeriodSeconds: 0 }),
  evict: (p) => {
    const { name } = taken(p).metadata;
    must(p.t, 'POST', `${space}/pods/${name}/eviction`, { metadata: { name } });
  },
  preempt: (p) => preempt(p.t, taken(p)),
  'it fails(?:: (\\w+))?': (p, reason) => failPod(p.t, taken(p), reason),
  ask: (p) => annotate(p.t, pathAt(taken(p)), { [MARK.replace]: 'true' }),
  'pod …': (p, metadata) => must(p.t, 'PATCH', pathAt(taken(p)), { metadata }),
  'its claims are wanted back': ({ t, it }) =>
    claimsOf(t, identityIn(it)).map(({ metadata: { name } }) =>
      annotate(t, `${claimsAt}/${name}`, { [MARK.restore]: 'true' }),
    ),
  'its volume goes': (p) => {
    const [claim] = claimsOf(p.t, identityIn(taken(p)));
    const path = `/api/v1/persistentvolumes/${claim?.spec['volumeName']}`;
    must(p.t, 'PATCH', path, { metadata: { finalizers: null } });
    must(p.t, 'DELETE', path);
  },
  'all fail': ({ t }) => livePods(t).map((pod) => isUp(pod) && failPod(t, pod)),
  'all go': ({ t }) => livePods(t).map((pod) => removePod(t, pod)),
  'all are taken out': ({ t }) => livePods(t).map((pod) => must(t, 'PATCH', pathAt(pod), OUTSIDE)),
  'all claims go': ({ t }) =>
    identitiesOf(t)
      .flatMap((id) => claimsOf(t, id))
      .map((o) => must(t, 'DELETE', `${claimsAt}/${o.metadata.name}`)),
  'quota …': ({ t }, hard) => {
    const metadata = { name: 'q', namespace: 'default' };
    apply(t, { apiVersion: 'v1', kind: 'ResourceQuota', metadata, spec: { hard } });
  },
  'no quota': ({ t }) => must(t, 'DELETE', `${space}/resourcequotas/q`),
  // By an object of nobody that carries our mark, just before the operator makes its own.
  'the next (.*-)… is taken': ({ t }, prefix) => {
    const kind = prefix === 'coder-' ? 'Pod' : 'PersistentVolumeClaim';
    const path = `${space}/${kind.toLowerCase()}s`;
    const spec = kind === 'Pod' ? bare.template.spec : netClaim()['spec'];
    t.faults.decide = ({ method, path: to, body }) => {
      const { name = '' } = (body as Seen | undefined)?.metadata ?? {};
      if (method !== 'POST' || !to.startsWith(path) || !name.startsWith(prefix)) return undefined;
      delete t.faults.decide;
      const metadata = { name, ...note(MARK.claims, '') };
      return void must(t, 'POST', path, { apiVersion: 'v1', kind, metadata, spec });
    };
  },
  'pods are denied: …': ({ t }, words) => refusePods(t, words),
  'nothing is denied': ({ t }) => delete t.sim.state.refuse,
  'told: …': ({ t }, words) =>
    assert.ok(listed(t, 'events').some((o) => o.message?.includes(words))),
  'its node is off': (p) => p.t.actors.kill(nodeOfPod(taken(p))),
  'taint its node: …': ({ t, it }, key) =>
    amendNode(t, nodeOfPod(it), { taints: [{ key, effect: 'NoExecute' }] }),
  '(\\w[\\w ]+?) (its node|n\\d.*)': ({ t, it }, act, nodes: string) =>
    (nodes === 'its node' ? [nodeOfPod(it)] : nodes.split(' ')).forEach((node) =>
      explained(NODE_ACTS, act)(t, node),
    ),
  '(cut off|off), one by one: # nodes': async (p, how, count) => {
    p.nodes = livePods(p.t).slice(0, count).map(nodeOfPod);
    for (const node of p.nodes) {
      p.t.actors[how === 'off' ? 'kill' : 'cutOff'](node);
      await p.t.sim.run(9000); // The first is not judged as if it were alone.
    }
  },
  'their nodes go': (p) => (p.nodes = livePods(p.t).map(nodeOfPod)).forEach(p.t.actors.removeNode),
  'their nodes are back': ({ t, nodes }) => nodes.forEach(t.actors.revive),
  '(once |every 2nd )?/…/ → ([\\w-]+)(?:, after …)?': (p, when, request, mishap, first) => {
    let count = 0;
    p.t.faults.decide = ({ method, path }) => {
      if (!RegExp(request).test(`${method} ${path}`)) return undefined;
      count++;
      if (when === 'once ' ? count > 1 : when && count % 2 === 0) return undefined;
      if (first) void doStep(p, first);
      return mishap;
    };
  },
  'faults (\\{.+)': ({ t }, faults) => Object.assign(t.faults, faults),
  '… stand still': ({ t }, kind) => (t.faults.frozen = new Set([kind])),
  'deny … of …': ({ t }, verbs, resource) =>
    (t.sim.state.denied = noRight(resource).filter(({ verb }) => RegExp(verbs).test(verb))),
  heal: ({ t, faults }) => {
    for (const fault of Object.keys(t.faults) as (keyof Faults)[]) delete t.faults[fault];
    Object.assign(t.faults, faults);
    t.sim.state.denied = [];
  },
  'the server is (away|back)': ({ t }, how) => (t.sim.down = how === 'away'),
  'a snapshot': (p) => (p.past = snapshotState(p.t.sim.state)),
  'etcd is restored': ({ t, past }) => (restoreState(t.sim.state, past!), t.sim.wake()),
  'the actors are restarted': ({ t }) => {
    t.sim.kill('actors'); // As the manual of etcd says.
    t.actors = newActors(t.sim, six);
  },
  'a new process': ({ t }) => (t.sim.kill('operator'), startOperator(t)),
  'it is killed': ({ t }) => t.sim.kill('operator'),
  'it is started': ({ t }) => startOperator(t),
  'it selects …': ({ t }, selector) => (t.selector = selector),
  'in # s: # …': (p, limit, n, what) =>
    until(p.t, what, () => counted(p, what) === n, 1000 * limit),
  'in # s: … replaces it': ({ t, it }, limit, reason) => replaced(t, it, reason, 1000 * limit),
  'the Lease goes': ({ t }) => t.sim.api('DELETE', leaseAt),
  'Lease …': ({ t }, body) => must(t, 'PATCH', leaseAt, body),
  'the Lease has …': ({ t }, words) =>
    assert.match(json(objectOf(t.sim.state, 'leases', 'default', 'statefulcluster')), words),
  // One more or one less is wanted every second, so that there is always something to write.
  'busy for # s': ({ t }, seconds) => {
    for (let i = 1; i <= seconds; i++) t.sim.at(i * 1000, () => edit(t, { replicas: 3 + (i % 2) }));
  },
  'some come': ({ t }) => until(t, 'some of them', () => livePods(t).length >= 8),
  '… is frozen for # s': (p, one, s) => p.t.sim.suspend(runner(p, one).who, 1000 * s),
  'faults of … (.*)': (p, one, faults) => Object.assign(runner(p, one).faults, faults),
  '(.) is killed': (p, one) => p.t.sim.kill(runner(p, one).who),
  '(.) stops': (p, one) => runner(p, one).stop.abort(),
  '(.) comes(?:, of …)?': ({ t }, one, share) => elect(t, one, share),
  '(.) counts( no)? …': (p, one, no, words) => {
    const text = op.metricsText(runner(p, one).vitals);
    assert.is(RegExp(`^statefulcluster_${words}`, 'm').test(text), no === undefined);
  },
  '(.) renews': (p, one) => {
    const before = instantOf(p, 'last renewal', one);
    return until(p.t, 'a renewal', () => instantOf(p, 'last renewal', one) > before);
  },
  '(.) (leads|waits)': (p, one, how) =>
    assert.equal([leads(p.t, runner(p, one)), runner(p, one).end], [how === 'leads', '']),
  'in # s: (.) (leads|writes)': (p, limit, one, does) => {
    const is = does === 'leads' ? leads : (t: Scene, who: Runner) => writesOf(t, who).length > 0;
    return until(p.t, `${one} ${does}`, () => is(p.t, runner(p, one)), 1000 * limit);
  },
  '(\\w+ ?\\w+) of (.) is #-# s after (?:the mark|(\\w+ \\w+) of (.))': (p, ...words) => {
    const [what, one, least, most, other, two] = words;
    const from = other ? instantOf(p, other, two) : p.markedAt;
    const seconds = (instantOf(p, what, one) - from) / 1000;
    assert.ok(seconds >= least && seconds <= most, `${seconds} s`);
  },
  // Their requests are on the wire then, and their claims are made.
  'past # live, # pods of (.) take # s': (p, live, count, one, seconds) => {
    const { faults } = runner(p, one);
    let sent = 0;
    faults.decide = ({ method, path }) => {
      if (method !== 'POST' || !path.includes('/pods?')) return undefined;
      if (livePods(p.t).length < live) return undefined;
      sent++;
      faults.latencyMs = [1000 * seconds, 1000 * seconds]; // Of this request, and of no other.
      queueMicrotask(() => delete faults.latencyMs);
      return undefined;
    };
    p.t.ledger.onTheWire = count;
    return p.t.sim.run(() => sent === count);
  },
  '(.): /…/ → (\\w+)': (p, one, request, mishap) => {
    runner(p, one).faults.decide = ({ path }) => (RegExp(request).test(path) ? mishap : undefined);
  },
  '(.) ends(?:: …)?': (p, one, why = /./) => assert.match(runner(p, one).end, why),
  '(.) hears again': (p, one) => delete runner(p, one).faults.decide,
  'at least # were up': ({ least }, n) => assert.is(least(), n),
  'all are updated': ({ t }) => assert.ok(onUpdate(t)),
  'their heirs live': ({ t }) =>
    clusterNow(t).status?.retired?.map((r) => assert.ok(identitiesOf(t).includes(r.replacedBy))),
  'it is sick': (p) => assert.ok((p.it = livePods(p.t).find((o) => !isUp(o)) as Seen)),
  'it lives': ({ t, it }) => assert.is(uidOfIdentity(t, it), it.metadata.uid),
  'it is gone': ({ t, it }) => assert.is(uidOfIdentity(t, it), ''),
  'the same (identities|claims)': (p, what: 'claims') => assert.equal(sceneOf(p.t)[what], p[what]),
  '(each|none) has …': ({ t }, who, words) =>
    assert.ok(livePods(t).every((o) => json(o).includes(words) === (who === 'each'))),
  'each restarted # times': ({ t }, n) => assert.ok(livePods(t).every((o) => restartsOf(o) === n)),
  '(status|spec): …': ({ t }, part: 'spec', words) =>
    assert.match(json(clusterNow(t)[part]), words),
  'it is let go of': ({ t, it }) => {
    const kept = listed(t, 'pods').find((o) => o.metadata.uid === it.metadata.uid);
    assert.ok(kept && isUp(kept) && !bossOf(kept));
    const left = claimsOf(t, identityIn(it)).map((o) => noteOf(o, MARK.retiredPolicy));
    assert.equal([left, livePods(t).some((o) => noteOf(o, MARK.replaces))], [['Retain'], false]);
  },
  'changed for: …': ({ t }, why) => {
    const causes = revisionsOf(t).map((o) => noteOf(o, 'kubernetes.io/change-cause'));
    assert.is(`${causes.sort()}`, why);
  },
  'revisions: …': ({ t }, numbers) => assert.is(`${revisionsOf(t).map(numberOf).sort()}`, numbers),
  'retired: …': ({ t }, why) =>
    assert.is(`${clusterNow(t).status?.retired?.map((r) => r.reason)}`, why),
  '… says …': ({ t }, type, words) => {
    const { status, reason, message } = conditionOf(t, type) ?? {};
    assert.match(`${status} ${reason}: ${message}`, words);
  },
  '#(?:-#)? (?!s$)…': (p, least, most = least, what) => {
    const n = counted(p, what);
    assert.ok(n >= least && n <= most, `${n}`);
  },
};
const MEANINGS = Object.entries(STEPS).map(([words, act]) => {
  const pattern = words.replaceAll('#', '(\\d[\\d.]*)').replaceAll('…', '(.+)');
  return [RegExp(`^${pattern}$`), act] as const;
});
function doStep(p: Story, step: string): unknown {
  const text = step.replace('$pod', p.it?.metadata.name).replace('$id', p.it && identityIn(p.it));
  const [[pattern, act] = [], ...more] = MEANINGS.filter(([one]) => one.test(text));
  if (!act) throw new Error(`the scenario says "${step}", which nothing explains`);
  if (more.length > 0) throw new Error(`"${step}" has two meanings: ${more.map(([one]) => one)}`);
  const words = pattern?.exec(text)?.slice(1) ?? [];
  const valueOf = (word: string) => (/^(\d+(\.\d+)?|\{.*)$/.test(word) ? JSON.parse(word) : word);
  return act(p, ...words.map(valueOf));
}
const doAll = (p: Story, steps: readonly string[]): void => steps.forEach((one) => doStep(p, one));
/** Steps, one after the other; the error of one says which. */
async function enact(p: Story, steps: string): Promise<void> {
  for (const step of steps.trim().split(/; */))
    try {
      await doStep(p, step);
    } catch (error) {
      throw new Error(`${step}: ${wordsOf(error)}`);
    }
}
async function enactAll(p: Story, acts: string, seen: string, isOpen = false): Promise<void> {
  await enact(p, acts);
  if (seen && !isOpen) await settle(p.t);
  if (seen) await enact(p, seen);
}
const SETTINGS: Readonly<Record<string, Setting>> = {
  ...{ any: {}, six, live, five, keeping: { keeps: 'pods' }, open: { nodes: 6, ends: 'open' } },
  claimless: { nodes: 6, spec: { ...bare, volumeClaimTemplates: [] } },
  ...{ none: { replicas: 0 }, one: { replicas: 1 }, two: { replicas: 2 }, wide: { nodes: 5 } },
  ...{ ten: { nodes: 10 }, sixty: { replicas: 60, nodes: 9 }, three: { nodes: 3 } },
  ...{ eight: { nodes: 8 }, net: { spec: { volumeClaimTemplates: [netClaim()] } } },
  ...{ open5: { ...five, nodes: 8, ends: 'open' }, same: { keeps: 'identities' } },
  ...{
    freeing: { spec: { persistentVolumeClaimRetentionPolicy: both } },
    volatile: { spec: { replacementPolicy: 'WhenVolumesLost' } },
  },
  ...{
    replacing: { spec: roll({ podUpdatePolicy: 'Replace', maxSurge: 1 }) },
    inTwo: { spec: inTwo },
  },
  freed: { spec: { persistentVolumeClaimRetentionPolicy: { whenDeleted: 'Delete' } } },
  slow: { actors: { stopMs: 25_000 } },
  ordered: { wait: false, spec: { podManagementPolicy: 'OrderedReady' } },
  hasty: { spec: { liveness: { nodeGoneSeconds: 5 } } },
  young: { replicas: 0, nodes: 4, spec: { liveness: { maxReplacements: '100%' } } },
  strict: { spec: { liveness: { startupSeconds: 60, unreadySeconds: 60, maxRestarts: 2 } } },
  sized: { spec: template({ resources: { requests: { cpu: '1', memory: '1Gi' } } }) },
};
function settingIn(words: string): Setting {
  const all = words.split(' ').map((word) => explained(SETTINGS, word));
  return Object.assign({}, ...all, { spec: Object.assign({}, ...all.map((s) => s.spec)) });
}
/** Scenarios in words, one a row: `title (setting): acts → what is so once all is settled`. */
function inWords(text: TemplateStringsArray, ...inserts: string[]): void {
  for (const row of rowsIn(text, ...inserts)) {
    const [, title = '', words = '', acts = '', seen = ''] =
      /^(.*?) \(([\w ]+)\): (.*) →(.*)$/.exec(row) ?? [];
    const setting = settingIn(words);
    const play = (t: Scene) => enactAll(storyOf(t), acts, seen, setting.ends === 'open');
    scenario(`${title} →${seen}`, setting, play);
  }
}

// ─── Losses, and one Reason for each ────────────────────────────────────────────────────────────
/** Does it every so often, for so long. */
function often(t: Scene, everyMs: number, forMs: number, act: () => void): Promise<boolean> {
  for (let at = 0; at < forMs; at += everyMs) t.sim.at(at, act);
  return t.sim.run(forMs);
}
const amendNode = (t: Scene, name: string, spec: Rec): Seen =>
  must(t, 'PATCH', `/api/v1/nodes/${name}`, { spec });
/** As the scheduler takes a pod off its node for one of a higher priority. */
function preempt(t: Scene, { metadata, status }: Seen): void {
  const why = { type: 'DisruptionTarget', status: 'True', reason: 'PreemptionByScheduler' };
  const conditions = [...(status?.conditions ?? []), why];
  must(t, 'PATCH', `${space}/pods/${metadata.name}/status`, { status: { conditions } });
  must(t, 'DELETE', `${space}/pods/${metadata.name}`);
}
/** What befalls a pod: acts, after a / what undoes them. Volumes that can follow with 3 replicas,
 *  with 1, and local ones with 3, with 1 (or one word for all) under Always, then under
 *  WhenVolumesLost; then members without claims. It `returns`, is replaced for this Reason, is
 *  `withheld` until the cause is undone, or `waits` for that. */
const FATES = rowsIn`
<deleted|force-deleted>: lose<| at once> | PodDeleted | returns | PodDeleted
<evicted by the API|preempted>: <evict|preempt> | returns | returns | PodEvicted
evicted by its kubelet: it fails: Evicted | returns | returns | PodEvicted
<refused by its kubelet|failed|at its end>: it fails<: OutOfpods||: Completed>
  | returns | returns | PodFailed
drained: cordon its node; evict / uncordon its node | returns returns PodEvicted withheld
  | returns returns waits waits | PodEvicted
driven off by somebody's taint: taint its node: team.example/mine / untaint its node
  | returns returns PodEvicted withheld | returns returns waits waits |
driven off by Kubernetes' taint: taint its node: node.kubernetes.io/network-unavailable
  / untaint its node | returns returns waits waits | returns returns waits waits |
shut down with its node: shut down its node / revive its node
  | returns returns NodeUnreachable withheld | same | PodEvicted
on a silent node: kill its node / revive its node
  | NodeUnreachable withheld NodeUnreachable withheld | same | NodeUnreachable
on a node that is gone: remove its node / revive its node
  | returns returns NodeGone withheld | same | PodEvicted
on a node out of service: put out of service its node
  | returns returns NodeOutOfService NodeOutOfService | same | PodEvicted`;
const AS_BEFORE = 'the same identities; the same claims; 0 ended';
const outcomeOf = (outcome: string, act: string, undo = ''): string => {
  if (outcome === 'returns') return `in 900 s: 1 returned → ${AS_BEFORE}`;
  const limit = act.startsWith('cordon') ? 20 : 900; // The old pod may go late.
  if (outcome in op.ENDS) return `in ${limit} s: ${outcome} replaces it; 90 s →`;
  const is = outcome === 'withheld' ? 'True' : 'False';
  return `500 s; 0 ended; ReplacementWithheld says ${is}; ${undo} → ${AS_BEFORE}`;
};
for (const row of FATES) {
  const [head = '', always = '', kept = '', none] = row.split('|').map((part) => part.trim());
  const [, what = '', act = '', undo] = /^(.*?): (.*?)(?: \/ (.*))?$/.exec(head) ?? [];
  const befalls = (outcome: string, setting: string): void =>
    inWords`
  F21, F32: ${setting}, a pod is ${what}, ${outcome} (${setting}): ${act};
    ${outcomeOf(outcome, act, undo)}`;
  const policies = { any: always, volatile: kept === 'same' ? always : kept };
  for (const [policy, text] of Object.entries(policies))
    for (const [i, volumes] of ['net', 'net one', 'any', 'one'].entries()) {
      const words = text.split(' ');
      befalls(words[i] ?? words[0] ?? '', `wide ${volumes} ${policy}`);
    }
  if (none) befalls(none, 'claimless');
}
inWords`
its volume is gone for good, its pod goes (volatile): its volume goes; lose;
  in 120 s: VolumeLost replaces it →
F22: <four of five|all> nodes are <cut off|off> for an hour, withheld, and return as it allows
  (<five eight|eight>): <cut off|off>, one by one: <4|3> nodes; 3600 s;
  ReplacementWithheld says True; ReplacementWithheld says <4 of 5|3 of 3> members;
  the same identities; 0 ended; their nodes are back
  → <3-5|3> of the same identities; ReplacementWithheld says False
F22: all nodes shut down, all return (three same <any|volatile>): shut down n0 n1 n2; 900 s;
  0 ended; revive n0 n1 n2 →
F22: nodes go and come back empty, then the leader, nobody ends (six same hasty <any|volatile>):
  their nodes go; in 120 s: 0 placed; 60 s; their nodes are back;
  ${'10 s; a new process; 120 s; '.repeat(3)}0 ended →
F31: a node dies under six young members, another a minute later, replaced in the pass in which the
  judgement is due (young): cordon n1 n2 n3; replicas 6; in 900 s: 6 up; in 900 s: 0 pending;
  uncordon n1 n2 n3; 5 s; remove n0; 32.5 s; 6 up; 30 s; remove n1; 32.5 s; 6 up;
  7-99 marked NodeGone →
F20: a silent node, not judged before 300 s, never to return (six): its node is off; 330 s;
  it lives; in 60 s: NodeUnreachable replaces it; revive its node → it is gone; 3 pods
F41: its clock is 15 min ahead, a silent node is judged no sooner (live): faults {"clockMs":900000};
  60 s; its node is off; 330 s; it lives; in 60 s: NodeUnreachable replaces it; revive its node →
F19: Pending for an hour, not judged (open):
  edit {"replicas":4,"template":{"spec":{"nodeSelector":{"disk":"none"}}}}; 3600 s
  → 4 live; 4 claims
F21: each new pod fails at once, it returns ever more slowly (any):
  every 1 s for 1800 s: all fail; 10-49 POST pods → the same claims
F36: somebody <deletes every new pod|takes every new pod out|deletes every new claim>, slows down to
  minutes (<six|claimless six|six>): every 2 s for 1800 s: <all go|all are taken out|all claims go,
  all fail>; <3-82 claims|3-130 POST pods|0-82 claims>; Ready says new members keep ending →
F36: … before it has a node (none open):
  edit {"replicas":3,"template":{"spec":{"nodeSelector":{"disk":"none"}}}};
  every 2 s for 600 s: all go; 9-60 POST pods →
F21: all fail again and again, <a DELETE|the status> is refused, no hot loop
  (six freeing <volatile|any>): /<DELETE .*/$pod|PATCH .*/status>/ → 500;
  every 0.1 s for 9 s: all fail; 1-4 POST pods; heal →
F28: lowered in the middle of a pass, no further batch (claimless): replicas 300; 0.03 s;
  replicas 3; 5 s; 4-150 POST pods →
F28: lowered and raised in mid-flight, no identity returns (six): lose; 0.12 s; replicas 2; 0.36 s;
  replicas 6; 0.06 s; replicas 1; 0.3 s; replicas 5 → it is gone
a class that cannot grow, told, tried ever more slowly (open):
  edit ${json({ volumeClaimTemplates: [localClaim('2Gi')] })}; 3600 s;
  ClaimTemplatesDrifted says only dynamically provisioned pvc can be resized;
  10-59 PATCH persistentvolumeclaims →
OrderedReady, one at a time, up and down (ordered): replicas 5; every 0.1 s for 20 s: 0-1 not up;
  0 pending; replicas 1; every 0.1 s for 100 s: 0-1 not up →
`;

// ─── Crashes ────────────────────────────────────────────────────────────────────────────────────

/** Plays with one mishap at each request in turn: `what (setting): acts → claims then retired`. */
function sweeps(text: TemplateStringsArray, ...inserts: string[]): void {
  for (const row of rowsIn(text, ...inserts)) {
    const [, what = '', words = '', acts = '', retired] =
      /^(.*?) \(([\w ]+)\): (.*) → (\d)$/.exec(row) ?? [];
    if (!only.test(`F1: ${what}`)) continue;
    scenarios(`scenario: F1: a mishap at every request of ${what} → as without`, async () => {
      for (let index = 0, more = true; more; index++)
        for (const mishap of ['crash-before', 'crash-after', 'lost', 503] as const)
          try {
            const t = await start({ nodes: 3, ...settingIn(words) });
            more = await playWithMishap(t, index, mishap, acts);
            checkClaims(t, Number(retired));
            t.operator.abort();
          } catch (error) {
            throw new Error(`${mishap} at request ${index}: ${String(error)}`);
          }
    });
  }
}
/** So many are retired, each member has its own, none is left over; pods are of the template. */
function checkClaims(t: Scene, retired: number): void {
  const { length: each } = claimsIn(firstPod(t));
  assert.is(claimsOf(t).filter((o) => labelOf(o, MARK.retired) === 'true').length, retired);
  assert.is(claimsOf(t).length - retired, livePods(t).length * each, 'none is left over');
  const { containers } = clusterNow(t).spec.template?.['spec'] as { containers: Rec[] };
  const [image, cpu] = [containers[0]?.['image'], cpuOf(containers[0] ?? {})];
  for (const pod of livePods(t)) assert.equal([imageOf(pod), cpuOf(boxOf(pod))], [image, cpu]);
}
async function playWithMishap(t: Scene, at: number, mishap: Mishap, acts: string) {
  let index = 0;
  let struck = false;
  t.faults.decide = () => {
    if (struck || index++ !== at) return undefined;
    struck = true;
    if (`${mishap}`.startsWith('crash')) t.sim.at(1000, () => startOperator(t));
    return mishap;
  };
  await enact(storyOf(t), acts);
  await t.sim.run(2000); // What was done must be noticed before it can be settled.
  await settle(t);
  return struck;
}
sweeps`
a creation (none): replicas 3 → 0
a replacement<| that deletes claims> (two<| freeing>): ask → <1|0>
a judged replacement (six): remove its node; 75 s → 1
a return (two volatile): lose → 0
a scale-in<| that deletes claims> (<any|freeing>): replicas 1 → <2|0>
an expansion (two net): edit ${json({ volumeClaimTemplates: [netClaim('2Gi')] })} → 0
a deletion and a new beginning (two): the cluster goes, Background; the cluster comes, of 2 → 0
a restore<| of two claims> (two<| inTwo>): ask; in 900 s: 0 of its identity; in 900 s: 0 pending;
  its claims are wanted back; 1 s; replicas 3; in 900 s: 1 of its identity → 0
`;

// ─── Updates ────────────────────────────────────────────────────────────────────────────────────

const each = <T>(value: T): T[] => Array<T>(5).fill(value);
/** The whole template at once, as `kubectl apply` and `rollout undo` leave it. */
function retemplate(t: Scene, { template: value }: Rec): void {
  const body = [{ op: 'replace', path: '/spec/template', value }];
  const answer = t.sim.api('PATCH', coder, body, 'application/json-patch+json');
  if (answer.status !== 200) throw new Error(JSON.stringify(answer.body));
}
const ENV = '{"env":[{"name":"A","value":"1"}]}';
const restartsOf = (pod: Seen): number =>
  (pod.status as unknown as { containerStatuses: { restartCount: number }[] }).containerStatuses[0]
    ?.restartCount ?? -1;
const imageOf = (pod: Seen): unknown => pod.spec.containers?.[0]?.['image'];
const revisionIn = (pod: Seen): string => labelOf(pod, MARK.revision);
const revisionsOf = (t: Scene): Seen[] =>
  listed(t, 'controllerrevisions').filter((o) => labelOf(o, MARK.cluster) === 'coder');
const numberOf = (o: Seen): number => (o as unknown as Raw)['revision'];
/** The least that were Ready at any step from now on. */
function leastReady(t: Scene): () => number {
  let least = Infinity;
  const before = t.sim.afterStep;
  t.sim.afterStep = () => {
    before?.();
    least = Math.min(least, livePods(t).filter(isUp).length);
  };
  return () => least;
}
const onUpdate = (t: Scene): boolean => {
  const { updateRevision, updatedReplicas } = clusterNow(t).status ?? {};
  const hashes = new Set(livePods(t).map(revisionIn));
  const isOne = hashes.size === 1 && hashes.has(`${updateRevision}`);
  return isOne && updatedReplicas === livePods(t).length;
};

const boxOf = (pod: Seen): Rec => pod.spec.containers?.[0] ?? {};
const cpuOf = (box: Rec) => (box['resources'] as { requests?: Rec } | undefined)?.requests?.['cpu'];
const sizes = (cpu: string, limits?: Rec): Rec => ({
  resources: { requests: { cpu, memory: '1Gi' }, ...(limits && { limits }) },
});
const GUARANTEED = json(sizes('1', { cpu: '1', memory: '1Gi' })); // Another QoS class.
const OWNING = json({ persistentVolumeClaimRetentionPolicy: { whenDeleted: 'Delete' } });
const UNNAMED = json({ ...sizes('1'), image: '' });
const strategy = (words: string): string => `{"updateStrategy":{"rollingUpdate":{${words}}}}`;
const WRITTEN = '{"restartPolicy":"Always","terminationGracePeriodSeconds":30}';
const port = (more: Rec): string => json({ ports: [{ containerPort: 80, ...more }] });
const inits = (...names: string[]): string =>
  json({ template: { spec: { initContainers: names.map((name) => ({ name, image: 'img:1' })) } } });
/** What is changed; how often each container restarts, or each pod is made anew, under the same
 *  identity and on the same claims; what is then to be seen. `protocol` reads like a default. */
for (const row of rowsIn`
an image (five): watch; template {"image":"img:2"} | 1 | 5 of img:2
labels (five): watch; labels {"tier":"x","protocol":"TCP"} | 0 | each has "protocol":"TCP"
labels taken back (five): labels {"tier":"x","protocol":"TCP"}; settle; mark; watch; template {}
  | 0 | none has "protocol"
defaults written out (five): watch; edit {"template":{"spec":${WRITTEN}}} | 0 | 5 up
defaults taken back (five): edit {"template":{"spec":${WRITTEN}}}; settle; mark; watch; template {}
  | 0 | 5 up
cpu (five sized): watch; template ${json(sizes('1500m'))} | 0 | each has "cpu":"1500m"
a size refused in place (five sized): watch; template ${GUARANTEED} | anew | each has "limits"
env (five): watch; template ${ENV} | anew | each has "env"
a rollout restart (five): watch; edit {"template":{"metadata":{"annotations":{"a":"b"}}}}
  | anew | each has "a":"b"
a field of a port goes (five): template ${port({ hostPort: 8080 })}; settle; mark; watch;
  template ${port({})} | anew | none has "hostPort"
init containers in another order (five): edit ${inits('a', 'b')}; settle; mark; watch;
  edit ${inits('b', 'a')} | anew | 5 up
a claim template more (five): watch; edit ${json(inTwo)} | anew | 10 claims`) {
  const [, what = '', words = '', acts = '', how = '', seen = ''] =
    /^(.*?) \((.*?)\): (.*) \| (.*) \| (.*)$/.exec(row) ?? [];
  const [kept, times] = how === 'anew' ? [0, 0] : [5, how];
  const made = what.endsWith('taken back') ? 0 : 1; // Its revision is there.
  inWords`
  update: ${what}, restarts: ${how}, never below 4 (${words}): ${acts} → all are updated; ${seen};
    the same identities; 5 of the same claims; ${`${kept}`} of the same pods;
    each restarted ${`${times}`} times; ${`${5 - kept}`} DELETE pods;
    ${`${made}`} POST controllerrevisions; at least ${how === '0' ? '5' : '4'} were up;
    status: "replacements":0`;
}
inWords`
update: <a refused resize|an env|a refusal>, Stalled says so, costs no member (five sized keeping):
  edit ${strategy('"podUpdatePolicy":"<InPlaceOnly|InPlaceOnly|InPlaceIfPossible>"')};
  template <${GUARANTEED}|${json({ ...sizes('1'), env: [{ name: 'A' }] })}|${UNNAMED}>; 60 s;
  Stalled says True UpdateBlocked;
  Stalled says <QOS|and spec.containers.c.env|spec.containers[0].image>; 600 s;
  1-9 Events of Stalled; 0 Events of Updated; template ${json(sizes('1'))} →
update: a resize is refused, as the status says already (five sized): template ${GUARANTEED}; 0.5 s;
  once /PATCH .*status/ → crash-after; a new process; 1 s; it is started → all are updated
suspend, then resume, the same members come back as what the template then says (five):
  edit {"suspend":true}; in 60 s: 0 pods; a new process; 600 s; Progressing says Suspended; 0 pods;
  status: "replicas":5,; template ${ENV}; edit {"suspend":false}
  → the same identities; the same claims; each has "env"
update: Replace, maxSurge <1|1|0>, <Retain|Delete|Retain>, never below that (five): watch;
  edit ${strategy('"podUpdatePolicy":"Replace","maxSurge":<1|1|0>,"maxUnavailable":<0|0|1>')};
  edit {"persistentVolumeClaimRetentionPolicy":{"whenReplaced":"<Retain|Delete|Retain>"}};
  template {"image":"img:2"} → all are updated; at least <5|5|4> were up;
  <5|0|5> marked Updated; <5 up|5 up|their heirs live>; 0 of the same identities;
  retired: Updated,Updated,Updated,Updated,Updated
`;
for (const [how, bad, said, same] of [
  ['in place', { image: 'bad:2' }, 'waiting for', '5'],
  ['in place, not to be pulled', { image: 'missing:2' }, 'ImagePullBackOff', '5'],
  ['by Recreate', { image: 'bad:2', env: [{ name: 'A', value: '1' }] }, 'waiting for', '4'],
] as const)
  inWords`
F29: an image never Ready ${how}, then <undo|a third one|undo, strictly judged>, heals by itself,
  nobody ends (<five|five|five strict>): watch; template ${json(bad)}; <600|600|3600> s;
  at least 4 were up; it is sick; Progressing says waiting for $id; Progressing says ${said};
  pods are marked; template <{}|{"image":"img:3"}|{}> → all are updated; the same identities;
  at least 4 were up; ${same} of the same pods`;
const RENAMED = json({ volumeClaimTemplates: [{ ...localClaim(), metadata: { name: 'disk' } }] });
inWords`
update: <a partition of 3|a pause|OnDelete>, a loss, a suspension, each at its revision (open5):
  edit <${strategy('"partition":3')}|${strategy('"paused":true')}|${json(roll({}, 'OnDelete'))}>;
  template {"image":"img:2"}; 30 s; evict; 60 s; <3|5|4> of img:1; <2|0|1> of img:2; lose; 60 s;
  <2|5|4> of img:1; <3|0|1> of img:2; edit {"suspend":true}; in 120 s: 0 pods; it is killed; 5 s;
  it is started; edit {"suspend":false}; 60 s; <3|5|0> of img:1; <2|0|5> of img:2;
  <0 s|Progressing says UpdatePaused|0 s>; edit ${json(roll({ partition: 0, paused: false }))};
  in 900 s: 0 outdated → all are updated
update: history is kept to its limit, and never loses one in use (five keeping):
  edit ${json({ revisionHistoryLimit: 2, ...roll({ partition: 5 }) })}; ${[1, 2, 3, 4, 5, 6]
    .map((i) => `template {"env":[{"name":"A","value":"${i}"}]}; 5 s`)
    .join('; ')};
  revisions: 1,5,6,7; template {} → 0 PATCH pods
update: a claim template renamed, a loss, one new, <a pause|a partition> (open5):
  edit ${strategy('<"paused":true|"partition":3>')}; edit ${RENAMED};
  template {"volumeMounts":[{"name":"disk","mountPath":"/d"}]}; 60 s; mark; lose; 600 s
  → 1 POST pods; 5 up
update: a change-cause annotated later, on its revision (any):
  cluster {"annotations":{"kubernetes.io/change-cause":"1"}}; settle; template {"image":"img:2"};
  cluster {"annotations":{"kubernetes.io/change-cause":"2"}} → changed for: 1,2
F27: keys in another order, a new process, no restart (five keeping):
  edit ${json({ template: { spec: podSpec } })}; a new process; 10 s
  → 0 POST controllerrevisions; 0 DELETE controllerrevisions
F17: gone (<Background|Foreground>), not told, few new (live): 5 s; its node is off;
  statefulclusters stand still; the cluster goes, <Background|Foreground>; 40 s; heal;
  0-12 POST pods; revive its node; in 900 s: 0 clusters; the cluster comes; 70 s →
F7: a release is answered with 500 for 10 s, few status writes (six): /PATCH .*pods/$pod\?/ → 500;
  pod {"labels":{"app":"mine"}}; 10 s; 0-11 PATCH status; heal →
F26: marks are refused for 20 s, no hot loop (six): 3 s; deny patch of persistentvolumeclaims; mark;
  all go; 20 s; 0-99 requests; heal →
F33: <a label|an owner|a mark> is refused, births go on, who cannot be ended keeps its place (six):
  deny patch of <pods|persistentvolumeclaims|persistentvolumeclaims>;
  <pod {"labels":{"${MARK.identity}":null}}|edit ${OWNING}|lose>; replicas 6;
  in 10 s: <6|6|5> up; heal; 600 s →
one of 60 is to be replaced, at most 30 others are read (sixty): ask;
  in 900 s: ReplaceRequested replaces it; 1-31 GET pods →
`;
sweeps`
an update by Recreate (two): template ${ENV} → 0
an update in place (two sized): template ${json({ ...sizes('1500m'), image: 'img:2' })} → 0
a suspension (two): edit {"suspend":true}; in 120 s: 0 pods; edit {"suspend":false} → 0
an update by Replace (two replacing): template ${ENV} → 2
`;

// ─── The API server and the network ─────────────────────────────────────────────────────────────

/** What every fault must leave alone: scale-up, deletions, scale-in, a dead node. */
const BUSY =
  'replicas 6; 4 s; lose; 2.5 s; lose at once; 5 s; replicas 4; 30 s; its node is off; ' +
  '500 s; replicas 5; 60 s';
const oneEach = (...all: readonly (string | number)[]): string => `<${all.join('|')}>`;
const watched = oneEach('pods', 'persistentvolumeclaims', 'statefulclusters', 'nodes');
const mishaps = ['reset', 'lost', 'hang', 'garbage', 429, 500, 503, 504] as const;
const writes = oneEach(
  ...['POST .*/pods', 'POST .*/persistentvolumeclaims', 'PATCH .*/persistentvolumeclaims/'],
  ...['DELETE .*/pods/', 'DELETE .*/persistentvolumeclaims/', 'PATCH .*/status', 'POST .*/events'],
);
inWords`
F4: events come twice and late (six freeing): faults {"replay":0.3}; ${BUSY}; heal →
F6: half of the streams are refused with 410 (six freeing): faults {"expired":0.5}; ${BUSY}; heal →
F2: ${watched} lag by 8 s (six freeing): faults {"lagMs":{"${watched}":8000}}; ${BUSY}; heal →
F7: ${oneEach(...mishaps)} for a quarter (six freeing):
  faults {"chance":[[${oneEach(...mishaps.map((one) => json(one)))},0.25]]}; ${BUSY}; heal →
F8: half the answers to ${writes} lost (six freeing): every 2nd /${writes}/ → lost; ${BUSY}; heal →
F5: the watch of ${watched} stands still for 5 min, nothing twice (live): ${watched} stand still;
  replicas 6; 20 s; lose; 280 s; heal →
F5: the connection is <cut|deaf> for 3 min, noticed and mended (live): faults {"<cut|deaf>":true};
  lose; 180 s; heal; in 70 s: 0 pending →
F7: Events hang, nothing waits for them for long (six): //events/ → hang; lose; 1 s;
  lose; 1 s; in 6 s: 3 live; heal →
F13: etcd is restored to an older snapshot, no identity twice (live): a snapshot; replicas 6;
  settle; lose; settle; etcd is restored; 120 s → 3 live
F13: etcd is restored, pods are not watched, made once (claimless): a snapshot;
  every 0.025 s for 1 s: noted; etcd is restored; /pods\?.*watch=true/ → 503; 60 s; mark;
  replicas 4; 60 s; 1 POST pods; heal; the actors are restarted →
F9: someone edits the cluster all the time, no lost update (six): replicas 8;
  every 0.037 s for 12 s: touched; lose →
F16: the status is wiped, then falsified, it is rebuilt (six): lose;
  in 900 s: PodDeleted replaces it; mark; status {"status":null}; settle; retired: PodDeleted;
  status {"status":{"replicas":99,"newestIdentity":"x","members":[],"conditions":null}}
  → the same identities
`;
scenario('F11: away for ten minutes, ten times → few requests, no leak', live, async (t) => {
  const heaps: number[] = [];
  for (let i = 0; i < 10; i++) {
    await enact(storyOf(t), 'lose; the server is away; 600 s; 81-199 tries; the server is back');
    await enact(storyOf(t), 'in 90 s: 0 pending; 30 s');
    const synced = t.sim.logs.filter((l) => l.message === 'caches are synced').length;
    assert.is(synced, Number(i === 0), 'once in the life of a process');
    for (const list of [t.sim.requests, t.sim.logs]) list.length = 0; // The test's own memory.
    Object.assign(t.ledger, { requests: 0 });
    heaps.push(heapMb());
  }
  const grown = (heaps[9] ?? 0) - (heaps[3] ?? 0);
  assert.ok(grown < 3, `the heap grew by ${grown.toFixed(1)} MB: ${heaps.map(Math.round)}`);
});

// ─── Refusals ───────────────────────────────────────────────────────────────────────────────────

const sumOf = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, n) => sum + n, 0);
/** Refusals are told in the API server's words, and cost no hot loop. Of a member whose pod is
 *  refused the claims are kept: after a hundred tries as after one. */
const refused = (words: string, claims = '4'): string =>
  `mark; replicas 4; 3000 s; ${claims} claims; Stalled says ${words}; told: ${words};
  1-5 Events of Stalled; 0-99 requests`;
const refusePods = (t: Scene, words: string, ofName = ''): void => {
  t.sim.state.refuse = (verb, resource, { metadata: { name } }) =>
    `${verb} ${resource}` === 'create pods' && name.startsWith(ofName)
      ? refusalOf(403, 'Forbidden', words)
      : undefined;
};
inWords`
F18: a quota of pods refuses, told, no claims pile up, heals (any): quota {"pods":"3"};
  ${refused('quota: q, requested: pods=1, used: pods=3, limited: pods=3')}; no quota →
F18: a quota of claims refuses, told, heals (any): quota {"persistentvolumeclaims":"3"};
  ${refused('used: persistentvolumeclaims=3, limited: persistentvolumeclaims=3', '3')}; no quota →
F18: a webhook refuses, told, no claims pile up, heals (any): pods are denied: by the webhook x;
  ${refused('by the webhook x')}; nothing is denied →
F18: a template refuses, told, no claims pile up, heals (any): template {"image":""};
  ${refused('image: Required value')}; template {} →
F18: a template refused for long is mended, tried at once (any): template {"image":""};
  replicas 4; 950 s; template {}; in 30 s: 4 up →
F18: a quota is full for long, a member is lost, replaced at once (live): quota {"pods":"3"};
  replicas 4; 950 s; lose; 2 s; in 60 s: 3 up; no quota →
F26: nodes may not be read, it says so, facts still count (six): deny . of nodes; a new process;
  5 s; Ready says nodes cannot be read; lose; in 900 s: PodDeleted replaces it →
F26: pods may not be touched for 10 min, a condition, then on (live): deny . of pods; replicas 4;
  600 s; Stalled says is forbidden: User "operator" cannot; 0-79 requests; heal →
F26: pods may not be read for 2 s, nothing stalls (live): deny list|watch of pods;
  the server is away; 0.1 s; the server is back; 1 s; replicas 4; 0.9 s; Stalled says False; heal →
`;
scenario('F18: the namespace is going → nothing is created, no hot loop', {}, async (t) => {
  apply(t, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team' } });
  apply(t, { ...exampleCluster({}, 'other'), metadata: { name: 'other', namespace: 'team' } });
  await t.sim.run(10_000);
  const mark = t.sim.requests.length;
  must(t, 'DELETE', '/api/v1/namespaces/team');
  await until(t, 'it is gone', () => !objectOf(t.sim.state, 'namespaces', '', 'team'));
  assert.ok((requestsSince(t, mark)['POST pods'] ?? 0) < 10);
});
const allVerbs = ['get', 'list', 'watch', 'create', 'patch', 'delete'];
const noRight = (resource: string) =>
  allVerbs.map((verb) => ({ verb, resource, user: 'operator' }));
/** A new process, which calls this for each cluster that it saw. */
function startSeeing(t: Scene, see: (key: string) => void) {
  const world = t.sim.world('operator', t.faults);
  const vitals = op.newVitals(world);
  vitals.sights.set = (key) => (see(key), vitals.sights);
  const stop = new AbortController();
  const options = { namespaces: [], selector: '', workers: 4, vitals };
  void op.runOperator(world, options, stop.signal);
  return { vitals, stop };
}
scenario('a pass throws each time → Stalled, one Event, and ever more slowly', live, async (t) => {
  t.sim.kill('operator');
  let times = 0;
  const { vitals, stop } = startSeeing(t, () => {
    throw new Error(`a bug, for the ${++times}th time`);
  });
  await t.sim.run(600_000);
  assert.is(conditionOf(t, 'Stalled')?.reason, 'InternalError');
  assert.is(newsOf(t, 'Stalled').length, 1);
  assert.ok(times < 60, `${times} passes`);
  const series = parseMetrics(op.metricsText(vitals));
  assert.is(series.get('statefulcluster_reconciles_total{result="error"}'), times);
  stop.abort();
  startOperator(t);
});
inWords`
F25: the CRD goes and comes, newer, unknown fields survive (live): the CRD goes; mark; 300 s;
  6-99 tries; the CRD comes, newer; the cluster comes; edit {"future":"a"}; 60 s;
  status {"status":{"future":"b"}}; replicas 4 → spec: "future":"a"; status: "future":"b"
`;
scenario('F18: one is refused → the others return', { nodes: 6, ends: 'open' }, async (t) => {
  refusePods(t, 'no', firstPod(t).metadata.name);
  for (const pod of livePods(t)) failPod(t, pod);
  await t.sim.run(2000);
  await until(t, 'two are up', () => livePods(t).filter(isUp).length === 2, 60_000);
});
scenario('F23: one of 100 is refused → 99 are Ready', { nodes: 9, ends: 'open' }, async (t) => {
  refusePods(t, 'no', 'c7-');
  const names = Array.from({ length: 100 }, (_, i) => `c${i}`);
  for (const name of names) apply(t, exampleCluster({}, name));
  await t.sim.run(30_000);
  const late = names.filter((name) => pendingOf(t, name) !== '');
  assert.equal(late, ['c7']);
});

// ─── Ownership and deletion ─────────────────────────────────────────────────────────────────────
for (const how of ['Background', 'Foreground', 'Orphan'])
  for (const setting of ['six', 'six freed', 'six slow']) {
    const back = setting === 'six freed' && how !== 'Orphan' ? '0' : '3';
    const gone = `the cluster goes, ${how}; in 900 s: 0 clusters`;
    const made = `the cluster comes, of 3 → ${back} of the same identities; 0 marked ScaledIn`;
    const late = how === 'Orphan' ? '' : 'in 900 s: 0 pods; ';
    inWords`
F17: deleted (${how}), made anew (${setting}): ${gone}; ${late}30 s; 0 POST pods; ${back} claims;
  ${made}
F17: deleted (${how}), made anew at once (${setting}): ${gone}; 0 POST pods; ${made}
`;
  }
const NO_LABELS = `{"labels":{"${MARK.cluster}":null,"${MARK.identity}":null}}`;
inWords`
F17: deleted and made anew< at once|>, of 2 (six): the cluster goes, Background;
  in 900 s: 0 clusters; <0 s|in 900 s: 0 pods; 30 s>; the cluster comes, of 2
  → 2 of the same identities; 1 marked ScaledIn
I10: Orphan, which its claims tell first, they stay (open freed):
  faults {"lagMs":{"statefulclusters":8000,"pods":8000,"controllerrevisions":8000}};
  the cluster goes, Orphan; 60 s; 3 claims that stay →
F24: <our labels are|the owner reference is> off a pod, put back (six keeping):
  pod <${NO_LABELS}|{"ownerReferences":null}> →
F24: <our labels are|the owner reference is> off a pod, unseen, put back (six keeping):
  it is killed; pod <${NO_LABELS}|{"ownerReferences":null}>; it is started →
I4: chosen no more, and again, within a lag, none too many (claimless): it is killed;
  cluster {"labels":{"app":"coder"}}; it selects app=coder; it is started; 5 s;
  faults {"lagMs":{"pods":8000}}; replicas 6; in 900 s: 6 live; cluster {"labels":{"app":"none"}};
  0.2 s; cluster {"labels":{"app":"coder"}}; 10 s; heal →
I9: an end without claims, not told, a new process, one Reason (claimless): its node is off;
  once /PATCH .*/status/ → reset; lose; 5 s; retired: PodDeleted; it is killed; replicas 2;
  it is started; 5 s; retired: ScaledIn,PodDeleted; revive its node →
paused, only the status is written, then it goes on (six):
  cluster {"annotations":{"${MARK.paused}":"true"}}; 0.1 s; lose; mark; 300 s;
  1-9 PATCH status; 1 kinds of requests; cluster {"annotations":{"${MARK.paused}":null}};
  in 900 s: PodDeleted replaces it →
I4: a POST is lost, as it is not wanted any more, not repeated (six):
  once /POST .*/pods/ → reset, after replicas 3; replicas 4 → 1 POST pods
F10: a foreign <coder-|data-|logs->… has the drawn name, and our mark, another identity (six inTwo):
  the next <coder-|data-|logs->… is taken; replicas 5 → 1 without label
F24: a pod is taken out of the selector, released with its data (six): pod {"labels":{"app":"mine"}}
  → retired: Released; 4 pods; 3 live; 4 claims; it is let go of
F24: our label is stripped, nobody tells more, nothing ends or is born (six keeping):
  /GET .*/(pods|persistentvolumeclaims)/./ → 500; all labels go; 180 s; 0 POST pods; 0 DELETE pods;
  0 POST persistentvolumeclaims; 0 DELETE persistentvolumeclaims; 0 POST controllerrevisions; heal
  → 0 without label
scale: 300 more, a claim and a pod each, few writes beside (ten): replicas 303
  → 300 POST pods; 300 POST persistentvolumeclaims; 1-30 PATCH status; 1-30 POST events;
  4 kinds of requests
`;

// ─── Scale: the requests of the bench's table, counted ──────────────────────────────────────────

if (only.test('scale: 1,000 events'))
  scenarios('scenario: scale: 1,000 events of a large cluster → looked at in batches', async () => {
    const sim = newSim(1);
    const seen: number[] = [];
    const work = async (key: string) => void seen.push(key === 'large' ? sim.uptime() : -1);
    const sizeOf = (key: string): number => (key === 'large' ? 1000 : 99);
    const queue = op.newQueue(sim.world('queue'), 4, work, sizeOf);
    queue.start();
    for (let i = 0; i < 1000; i++) sim.at(i, () => queue.add('large'));
    for (let i = 0; i < 9; i++) sim.at(100 + i, () => queue.add('small'));
    await sim.run(3000);
    const passes = seen.filter((at) => at >= 0);
    assert.is(seen.lastIndexOf(-1), 9, 'while the large one rests, the small one is looked at');
    assert.is(passes.length, 2, 'of one second, one pass at once and one for the rest');
    assert.ok((passes.at(-1) ?? 0) >= 999, 'the last event is seen');
  });
if (only.test('scale: 1,000 clusters'))
  scenarios('scenario: scale: 1,000 clusters → no request at rest, nor anew', async () => {
    const t = newScene({ nodes: 0 });
    t.sim.kill('actors'); // Nobody acts but the operator.
    t.sim.afterStep = () => undefined; // Its laws are checked elsewhere; here there are too many.
    const seeding: Seeding = async (method, path, body) =>
      must(t, method, path, body as Rec) as unknown as Raw;
    await seedNodes(seeding);
    const names = Array.from({ length: 1000 }, (_, i) => `c-${i}`);
    for (const name of names) await seedCluster(seeding, ['default', name, 3]);
    const passes = new Map<string, number>();
    const count = (key: string): unknown => passes.set(key, (passes.get(key) ?? 0) + 1);
    const during = async (ms: number) => {
      passes.clear();
      const mark = t.sim.requests.length;
      await t.sim.run(ms);
      return [passes.size, requestsSince(t, mark)];
    };
    const first = startSeeing(t, count);
    assert.equal(await during(60_000), [1000, { 'PATCH status': 1000 }]);
    assert.equal((await during(300_000))[1], {}, 'five minutes at rest');
    first.stop.abort();
    await t.sim.run(5000);
    const second = startSeeing(t, count);
    assert.equal(await during(60_000), [1000, {}], 'after a restart');
    const touched = listed(t, 'pods').filter((_, i) => i % 3 > 0); // Two of each three.
    for (const pod of touched) must(t, 'PATCH', pathAt(pod), { metadata: { labels: { a: 'b' } } });
    assert.equal([touched.length, ...(await during(1000))], [2000, 1000, {}], 'after 2,000 events');
    assert.ok(Math.max(...passes.values()) <= 2, `${Math.max(...passes.values())} passes of one`);
    second.stop.abort();
  });
if (TESTING) scenarios.run();

// ═══ 13 LEADER · effects in virtual time ════════════════════════════════════════════════════════
// Several whole operators on one embedded API server, a Lease between them. Every row ends as the
// scenarios do, and with no process that wrote again after another had begun.

/** A process that wants the Lease. */
type Runner = ReturnType<typeof newRunner>;
const newRunner = (who: string, faults: Faults, vitals: op.Vitals) => ({
  ...{ who, faults, vitals, stop: new AbortController() },
  end: '', // While it runs; 'released', or what it died of.
  endedAt: Infinity,
});
function elect(t: Scene, name: string, share: Partial<op.Share> = {}) {
  const who = `operator-${name}`;
  const faults: Faults = {};
  const vitals = op.newVitals(t.sim.world(who, faults));
  const runner = newRunner(who, faults, vitals);
  t.runners.push(runner);
  const ends = (end: string): void => void Object.assign(runner, { end, endedAt: t.sim.uptime() });
  const lease = { namespace: 'default', identity: who };
  const options = { namespaces: [], selector: '', workers: 4, ...share, lease, vitals };
  op.runElected(op.measured(vitals), options, runner.stop.signal).then(
    () => ends('released'),
    (error: unknown) => ends(error instanceof Error ? error.message : String(error)),
  );
  return runner;
}
const leaseAt = '/apis/coordination.k8s.io/v1/namespaces/default/leases/statefulcluster';
const holderOf = (t: Scene): string =>
  seenAt(t.sim, 'leases', 'default', 'statefulcluster')?.spec['holderIdentity'] ?? '';
/** Of its own scope or of another. */
const leads = (t: Scene, { who }: Runner): boolean =>
  listed(t, 'leases').some((o) => o.spec['holderIdentity'] === who);
const isRead = ({ method }: Sent): boolean => method === 'GET' || method === 'WATCH';
const isOfLease = ({ path }: Sent): boolean => path.includes('/leases');
/** What this one wrote, but for Leases. */
const writesOf = (t: Scene, { who }: Runner, mark = 0): readonly Sent[] =>
  t.sim.requests.slice(mark).filter((r) => r.who === who && !isRead(r) && !isOfLease(r));
const isDone = ({ status }: Sent): boolean => status >= 200 && status < 300;
/** Every process has one turn. */
function checkTurns(t: Scene): void {
  const writers = t.sim.requests.filter((r) => isOperator(r.who) && !isRead(r) && !isOfLease(r));
  const turns = writers.map((r) => r.who).filter((who, i, all) => who !== all[i - 1]);
  assert.equal(turns, [...new Set(turns)], 'nobody wrote after another had begun');
}
const leaders = suite('leader');
/** Elections in words, one a row: `title: acts → what is so once all is settled`. */
function elections(text: TemplateStringsArray, ...inserts: string[]): void {
  for (const row of rowsIn(text, ...inserts)) {
    const [, title = '', acts = '', seen = ''] = /^((?:F\d+: )?.*?): (.*) →(.*)$/.exec(row) ?? [];
    if (!only.test(title)) continue;
    leaders(`leader: ${title} →${seen}`, async () => {
      const t = newScene(six);
      const a = elect(t, 'a');
      await until(t, 'a leads', () => leads(t, a), 60_000);
      await t.sim.run(1800); // So b looks shortly before a renews: the worst of all phases.
      elect(t, 'b');
      apply(t, exampleCluster());
      await until(t, 'all are Ready', () => pendingOf(t) === '');
      await enactAll(storyOf(t), acts, seen);
      await settle(t);
      if (t.ledger.onTheWire === 0) checkTurns(t);
      for (const { stop } of t.runners) stop.abort();
      await t.sim.run(5000);
      assert.is(holderOf(t), '', 'the Lease is released');
    });
  }
}

elections`
F15: the Lease is deleted by hand, its holder makes it anew: busy for 150 s;
  every 7.7 s for 160 s: the Lease goes → a leads; 0 writes of b
F15: the Lease is deleted, its holder killed, takeover in time: a renews; a is killed;
  the Lease goes; in 17.1 s: b leads →
F15: a renewal is one request, what another wrote is read, and kept: a renews; mark; 10.1 s;
  5 requests of a; Lease {"metadata":{"annotations":{"note":"x"}}}; mark; 6 s; 5 requests of a;
  the Lease has "note":"x" →
F15: somebody edits the Lease in a loop, the leader stays:
  every 0.5 s for 30 s: Lease {"metadata":{"annotations":{"note":"x"}}},
  Lease {"metadata":{"annotations":{"note":"y"}}}; 30 s; a leads; the Lease has "note":"y" →
F43: the Lease loses its label, its holder dies, takeover in time:
  Lease {"metadata":{"labels":{"app.kubernetes.io/name":null}}}; a is killed; in 17.1 s: b leads;
  b renews; the Lease has "app.kubernetes.io/name":"statefulcluster" →
F15: the holder is edited away, the leader stops at once:
  Lease {"spec":{"holderIdentity":"somebody"}}; busy for 10 s; 2.5 s;
  a ends: lost the Lease statefulcluster: somebody holds it; in 17.5 s: b leads →
F14: the clocks step <forward|back> an hour, nothing changes: faults of a {"clockMs":<|->3600000};
  60 s; faults of b {"clockMs":<-|>3600000}; 60 s; a leads; 0 writes of b; a is killed;
  in 17.5 s: b leads →
F14: frozen past its Lease while 20 come, it writes nothing more: replicas 20; some come;
  a is frozen for 30 s; 0.1 s; mark →
  a ends: lost the Lease statefulcluster: it was not renewed in time; 0 writes of a;
  13-99 writes of b
F12: the API server is away for ten minutes, b leads, few requests: the server is away; 600 s;
  the server is back; 101-310 requests of b; a ends: lost the Lease; in 60 s: b leads →
F30: SIGTERM while every request hangs, it ends within 5 s: replicas 20; some come; a: /./ → hang;
  a stops; 4.9 s; a ends; 1.1 s; a is killed; in 60 s: b leads →
F14: frozen for less, goes on: replicas 20; some come; a is frozen for 7 s → a leads; 0 writes of b
F12: every request hangs, leadership is given up in time: busy for 60 s; 5 s; a: /./ → hang;
  b: /./ → hang; 10 s; mark; 2 s; a ends: lost the Lease statefulcluster:; 0 writes of a; 50 s;
  b hears again; in 60 s: b leads →
F30: SIGTERM of the standby, it ends, the leader stays: b stops; 1 s; b ends: released; a leads →
F30: SIGTERM while 20 come, the Lease is released, b goes on: replicas 20; some come; mark;
  faults of a {"latencyMs":[40,80]}; 0.03 s; a stops; in 8 s: b writes; a ends: released;
  end of a is 0-5 s after the mark; last write of a is 0.031-5 s after the mark;
  last renewal of a is 0.001-5 s after last write of a; the Lease has "leaseTransitions":1;
  the Lease has "leaseDurationSeconds":15 →
F15: the leader is killed while 20 come, takeover, exactly 20: a renews; replicas 20; some come;
  1-99 requests of b; 0 other requests of b; a is killed; mark; in 17.5 s: b writes;
  first write of b is 14.9-15.5 s after first request of b; 8-19 live; settle; 20 live;
  0-21 pods ever posted →
an overlapping scope, stands by and writes nothing, then leads:
  c comes, of {"namespaces":["default"]}; 60 s; 1 Leases; a leads; c waits; 1-99 requests of c;
  0 other requests of c; 0 writes of c; a stops; b stops; in 5 s: c leads; d comes; busy for 20 s;
  20 s; c leads; d waits; 0 writes of d →
the Lease of another scope, long dead, waited out once: c comes, of {"selector":"tier=x"}; 20 s;
  a is killed; b is killed; c is killed; d comes, of {"selector":"tier=x"}; in 20 s: d leads;
  d is killed; e comes; in 60 s: e leads →
two parts of a split, both lead, each its own clusters: cluster {"labels":{"tier":"x"}}; 5 s;
  a stops; b stops; p comes, of {"selector":"tier=x"}; q comes, of {"selector":"tier notin (x)"};
  in 20 s: p leads; in 20 s: q leads; mark; lose; 60 s; 1-99 writes of p; 0 writes of q;
  cluster {"labels":{"tier":"y"}}; 5 s; mark; lose; 60 s; 0 writes of p; 1-99 writes of q; p leads;
  q leads →
the second look fails for 8 s, nothing begins before it: a is killed; b is killed; the Lease goes;
  c comes; in 20 s: c leads; c: /leases\?/ → 503; 8 s; c leads; 1-16 requests of c;
  0 other requests of c; c hears again; 5 s; 1-99 other requests of c →
F14: its batch lands after b has begun, no surplus, one pod each: replicas 18;
  past 10 live, 8 pods of a take 25 s; a is killed; in 24 s: 18 up; mark; 30 s
  → 18 of the same pods; 18 claims
a pod is deleted, counted, in the words of the Event (I9): lose; in 900 s: PodDeleted replaces it;
  a counts replacements_total.reason="PodDeleted". 1; a counts leader 1; b counts leader 0;
  a counts no replacements_total.reason="(?!PodDeleted)\w+". [1-9]; the cluster goes, Background;
  30 s; a counts no members.; a counts no retired_claims.; the cluster comes →
F15: renewals <refused|away|hanging|unheard>, it stops before the Lease ends: busy for 60 s; 5 s;
  mark; a: //leases/ → <500|reset|hang|lost>; 40 s; a ends: lost the Lease statefulcluster: ;
  end of a is 0-12 s after the mark; first write of b is 3-60 s after last write of a;
  last write of a is 0.001-12 s after the mark;
  first write of b is 15-60 s after last renewal of a →
`;

leaders('leader: newcomers with overlapping scopes at once → never two of them lead', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const t = newScene(six);
    apply(t, exampleCluster());
    const [c, d] = [elect(t, 'c'), elect(t, 'd', { namespaces: ['default'] })];
    if (seed <= 10) t.sim.suspend(d.who, seed / 2);
    else for (const { faults } of [c, d]) faults.latencyMs = [seed, seed]; // In step.
    await t.sim.run(60_000);
    const wrote = [c, d].filter((one) => writesOf(t, one).length > 0);
    assert.is(wrote.length, 1, `one wrote, ${seed}`);
    assert.equal([c.end, d.end], ['', ''], `the other stands by, ${seed}`);
  }
});
if (TESTING) leaders.run();

// ═══ SIMULATION · effects in virtual time ═══════════════════════════════════════════════════════
// Each seed draws clusters, what their users do and what befalls them: a script of moves, each at
// its time. It is played with the code of production; what must never happen is checked after every
// step; then every fault ends, and status must equal spec and silence fall (I6). A script that
// breaks something is made shorter for as long as the same law still breaks. The same script gives
// the same bytes: `hash` covers every request and every stored change.

/** One thing that a user does or that befalls somebody, at that ms; x, y and z say how. */
type Move = Readonly<{ at: number; what: string; x: number; y: number; z: number }>;
type Script = ReturnType<typeof drawScript>;
/** A line of history. */
type Line = Readonly<{ at: number; text: string }>;
function tell(s: Trial, text: string): void {
  s.told.push({ at: s.t.sim.uptime(), text: `* ${text}` });
}

// ─── Drawing ────────────────────────────────────────────────────────────────────────────────────
const oneOf = <T>(list: readonly T[], x: number): T => list[Math.floor(x * list.length)] as T;
/** From `least` to `most`, evenly by magnitude. */
const spanOf = (x: number, least = 50, most = 60_000) => Math.round(least * (most / least) ** x);

function drawSpec(roll: () => number): Rec {
  const some = (chance: number, fields: Rec): Rec => (roll() < chance ? fields : {});
  const kept = (): string => (roll() < 0.6 ? 'Retain' : 'Delete');
  const names = ['data', 'log'].slice(0, oneOf([0, 1, 1, 1, 2], roll()));
  const volumeClaimTemplates = names.map((name) => {
    const claim = roll() < 0.6 ? localClaim() : netClaim();
    return { ...claim, metadata: { name } };
  });
  const mounts = names.map((name) => ({ name, mountPath: `/${name}` }));
  const containers = [{ name: 'c', image: 'img:1', volumeMounts: mounts }];
  const liveness = {
    nodeGoneSeconds: spanOf(roll(), 3, 40),
    nodeUnreachableSeconds: spanOf(roll(), 3, 60),
    volumeLostSeconds: spanOf(roll(), 3, 30),
    ...some(0.3, { unreadySeconds: spanOf(roll(), 5, 30) }),
    ...some(0.3, { startupSeconds: spanOf(roll(), 5, 30) }),
    ...some(0.3, { maxRestarts: 1 + Math.floor(roll() * 2) }),
    ...some(0.4, { maxReplacements: oneOf([0, 1, 2, '50%', '100%'], roll()) }),
  };
  return {
    replicas: oneOf([1, 2, 3, 3, 3, 4, 5, 7], roll()),
    ...{ template: { spec: { containers } }, volumeClaimTemplates, liveness },
    persistentVolumeClaimRetentionPolicy: Object.fromEntries(MOMENTS.map((when) => [when, kept()])),
    ...some(0.3, { replacementPolicy: 'WhenVolumesLost' }),
    ...some(0.2, { podManagementPolicy: 'OrderedReady' }),
    ...some(0.3, { minReadySeconds: spanOf(roll(), 1, 15) }),
    ...some(0.2, { serviceName: 'svc' }),
    ...some(0.3, { ordinals: { start: oneOf([0, 1, 5], roll()) } }),
  };
}
/** Each seed knows only some of the moves, so that these meet each other more often. Half of its
 *  moves are of the `wanted` ones, if there are any. */
function drawScript(seed: number, steps: number, wanted: readonly string[]) {
  const roll = newRandom(seed, 'script');
  const nodes = 3 + Math.floor(roll() * 4);
  const names = ['a', 'b', 'c'].slice(0, oneOf([1, 1, 1, 1, 2, 3], roll()));
  const clusters = names.map((name) => exampleCluster(drawSpec(roll), name));
  const operators = roll() < 0.25 ? 2 : 1; // Two have a Lease between them.
  const known = Object.keys(MOVES).filter(() => roll() < 0.4);
  const urn = known.flatMap((what) => Array<string>(weightOf(what)).fill(what));
  urn.push(...urn.flatMap((_, i) => wanted[i % wanted.length] ?? []));
  let at = 0;
  const moves = Array.from({ length: steps }, (): Move => {
    at += roll() < 0.2 ? 0 : spanOf(roll(), 1, 30_000);
    return { at, what: oneOf(urn, roll()) ?? 'scale', x: roll(), y: roll(), z: roll() };
  });
  const restMs = spanOf(roll(), 100, 60_000); // From the last move to the end of all faults.
  const provisionMs = roll() < 0.2 ? spanOf(roll(), 1000, 20_000) : 200; // Until a volume is made.
  return { seed, steps, nodes, operators, clusters, moves, restMs, provisionMs };
}
/** All that was drawn, on two lines. */
function scriptText({ seed, nodes, operators, clusters, moves, restMs }: Script): string {
  const each = clusters.map((cluster) => {
    const { selector: _s, template: _t, volumeClaimTemplates, ...rest } = cluster['spec'] as Rec;
    const claims = recsOf(volumeClaimTemplates).map(
      (c) => `${pathOf(c, 'metadata.name')}:${pathOf(c, 'spec.storageClassName') ?? 'local'}`,
    );
    return `${pathOf(cluster, 'metadata.name')} ${JSON.stringify({ ...rest, claims })}`;
  });
  const told = each.join(' ').replaceAll('"', '');
  const list = moves.map((move) => `${(move.at / 1000).toFixed(3)} ${move.what}`).join(', ');
  const head = `seed ${seed}: ${nodes} nodes, ${operators} operator${operators > 1 ? 's' : ''}`;
  return `${head}; ${told}\n  ${list}; rest ${(restMs / 1000).toFixed(3)}`;
}

// ─── Acts ───────────────────────────────────────────────────────────────────────────────────────

/** What is done, as a sentence; undefined when there is nothing to do it to. */
type Deed = (s: Trial, move: Move) => string | undefined;

/** A wish of a user; it may be refused, which is told. */
function wish(s: Trial, method: ApiRequest['method'], path: string, body: unknown, what: string) {
  const { status, body: answer } = s.t.sim.api(method, path, body);
  const why = status >= 300 ? `: ${status} ${(answer as { message?: string }).message}` : '';
  return what + why;
}
const patchCluster = (s: Trial, name: string, body: Rec, what = ''): string =>
  wish(s, 'PATCH', `${clusterAt('default')}/${name}`, body, what);
const patchObject = (s: Trial, o: Seen, metadata: Rec, what = ''): string =>
  wish(s, 'PATCH', pathAt(o), { metadata }, what);
const setTaints = (s: Trial, node: string, taints: readonly Rec[], what = ''): string =>
  wish(s, 'PATCH', `/api/v1/nodes/${node}`, { spec: { taints } }, what);
const removeObject = (s: Trial, path: string, options: Rec, what = ''): string =>
  wish(s, 'DELETE', path, options, what);
function evicts(s: Trial, pod: Seen): string {
  const { name } = pod.metadata;
  return wish(s, 'POST', `${pathAt(pod)}/eviction`, { metadata: { name } }, `evict ${name}`);
}
/** Begins something that ends after a while, or with all faults. */
function during(s: Trial, ms: number, what: string, end: () => unknown): string {
  const once = (): void => {
    if (s.ends.delete(once)) end();
  };
  s.ends.add(once);
  s.t.sim.at(ms, once);
  return `${what} for ${ms / 1000} s`;
}
const clusterNames = (s: Trial): string[] =>
  (s.script.clusters as unknown as Seen[]).map(({ metadata }) => metadata.name);
const claimsAt = `${space}/persistentvolumeclaims`;
/** The path of a pod or claim. */
const pathAt = ({ kind, metadata }: Seen): string =>
  `${kind === 'Pod' ? `${space}/pods` : claimsAt}/${metadata.name}`;
/** Pods of all clusters, also those on their way out. */
const anyPods = (s: Trial): Seen[] => listed(s.t, 'pods').filter(isOurs);
const nodeNames = (s: Trial): string[] => Array.from({ length: s.script.nodes }, (_, i) => `n${i}`);

const retiredClaims = (s: Trial): Seen[] =>
  claimsOf(s.t).filter((o) => labelOf(o, MARK.retired) === 'true');
const claimsOfCluster = (s: Trial, name: string): Seen[] =>
  claimsOf(s.t).filter((o) => labelOf(o, MARK.cluster) === name);

/** Something done to one of these, which x chooses, if there are any. */
const toOne =
  <T>(all: (s: Trial) => readonly T[]) =>
  (play: (s: Trial, one: T, move: Move) => string | undefined): Deed =>
  (s, move) => {
    const list = all(s);
    return list.length > 0 ? play(s, oneOf(list, move.x), move) : undefined;
  };
const operatorNames = (s: Trial): string[] => [...s.faults.keys()];
const named = toOne(clusterNames); // There or not.
const toNode = toOne(nodeNames);
const toPod = toOne(anyPods);
const toClaim = toOne((s) => claimsOf(s.t));
const toOperator = toOne(operatorNames);
/** Something done to one cluster, if it is there. */
const toCluster = (play: (s: Trial, now: Seen, move: Move) => string | undefined): Deed =>
  named((s, name, move) => {
    const now = clusterNow(s.t, name) as Seen | undefined;
    return now && play(s, now, move);
  });
/** A change of the spec of one cluster. */
const editing = (draw: (move: Move, now: Seen) => Rec): Deed =>
  toCluster((s, now, move) => {
    const { name } = now.metadata;
    const spec = draw(move, now);
    return patchCluster(s, name, { spec }, `edit ${name} ${JSON.stringify(spec)}`);
  });
const patching = (what: string, metadata: Rec): Deed =>
  toPod((s, pod) => patchObject(s, pod, metadata, `${what} ${pod.metadata.name}`));
/** What only a kubelet can do: nothing, where none runs the pod. */
function byKubelet(what: string, move: () => void): string | undefined {
  try {
    move();
    return what;
  } catch {
    return undefined;
  }
}
/** A node that is in trouble for a while; or all of them are. */
const trouble = (way: 'kill' | 'cutOff' | 'removeNode' | 'drainShutdown'): Deed =>
  toNode((s, node, { y, z }) => {
    const all = z < 0.1 ? nodeNames(s) : [node];
    all.forEach(s.t.actors[way]);
    const back = (): void => all.forEach(s.t.actors.revive);
    return during(s, spanOf(y, 1000, 120_000), `${way} ${all.join(' ')}`, back);
  });
/** The cluster as it was drawn, unless it is there. */
function comesBack(s: Trial, name: string): string {
  const given = s.script.clusters.find((c) => (c['metadata'] as Rec)['name'] === name);
  return wish(s, 'POST', clusterAt('default'), given, `create ${name}`);
}
const scale = (s: Trial, { metadata: { name } }: Seen, replicas = 1): string =>
  patchCluster(s, name, { spec: { replicas } }, `${name} has ${replicas}`);
/** No operator has these rights for a while. */
function denies(s: Trial, verbs: readonly string[], resource: string, ms: number): string {
  const { state } = s.t.sim;
  const rules = verbs.flatMap((verb) => operatorNames(s).map((user) => ({ verb, resource, user })));
  state.denied = [...state.denied, ...rules];
  return during(s, ms, `no right to ${resource}`, () => {
    state.denied = state.denied.filter((rule) => !rules.some((own) => own === rule));
  });
}
const DENIED = refusalOf(403, 'Forbidden', 'admission webhook denied the request');
const crdsAt = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
/** Does it again and again, until what is returned is called. */
function repeats(s: Trial, everyMs: number, act: () => unknown): () => void {
  let on = true;
  const turn = (): void => {
    if (!on) return;
    act();
    s.t.sim.at(everyMs, turn);
  };
  turn();
  return () => (on = false);
}

// ─── What befalls an operator ───────────────────────────────────────────────────────────────────

/** Its faults change for a while. */
const suffering =
  (draw: (s: Trial, move: Move) => Faults): Deed =>
  (s, move) => {
    const [who, faults] = oneOf([...s.faults], move.z);
    const given = draw(s, move);
    if (given.clockMs === undefined) s.witness.slowMs = 130_000; // It may not be heard.
    Object.assign(faults, given);
    const shown = JSON.stringify(given, (_, v) => (v instanceof Set ? [...v] : v));
    return during(s, spanOf(move.y), `${who} suffers ${shown}`, () => {
      for (const fault of Object.keys(given) as (keyof Faults)[]) delete faults[fault];
    });
  };
type Strike = (request: ApiRequest) => Mishap | undefined | false; // false: not this one.
/** One mishap for one of its next requests. */
function strikes(s: Trial, who: string, what: string, strike: Strike): string {
  const faults = s.faults.get(who) ?? {};
  const before = faults.decide;
  let struck = false;
  faults.decide = (request, index) => {
    const mishap = struck ? false : strike(request);
    if (mishap === false) return before?.(request, index);
    struck = true;
    if (`${mishap}`.startsWith('crash')) restarts(s, who, 500);
    return mishap;
  };
  return `${who}: ${what}`;
}
function restarts(s: Trial, who: string, afterMs: number): void {
  if (!s.up.delete(who)) return;
  s.witness.troubleAt = s.t.sim.uptime();
  s.t.sim.at(afterMs, () => goesUp(s, who));
}
function goesUp(s: Trial, who: string): void {
  if (s.up.has(who) || !s.faults.has(who)) return; // A second one that has ended stays away.
  s.up.add(who);
  s.t.sim.kill(who);
  s.witness.over.delete(who);
  s.witness.startedAt.set(who, s.t.sim.uptime());
  // Of members without claims, a process that ends may take the word with it.
  const { reasons } = s.t.ledger;
  for (const key of reasons.keys())
    if (ownClaims(s.t.ledger, key).length === 0) reasons.set(key, UNSURE);
  if (s.witness.writer === who) s.witness.writer = '';
  const identity = `${who}-${s.turns++}`;
  const lease = s.script.operators > 1 ? { namespace: 'default', identity } : undefined;
  const onLost = (): void => {
    tell(s, `${identity} lost the Lease`);
    s.t.sim.kill(who);
    restarts(s, who, 1000);
  };
  startOperator(s.t, who, s.faults.get(who), lease, onLost);
}
const KINDS = ['pods', 'persistentvolumeclaims', 'statefulclusters', 'nodes'];
const containersWith = (now: Seen, over: Rec): Rec => {
  const { containers = [] } = (now.spec.template?.['spec'] ?? {}) as { containers?: Rec[] };
  return { template: { spec: { containers: containers.map((c) => ({ ...c, ...over })) } } };
};
const templates: readonly ((z: number, now: Seen) => Rec)[] = [
  (z, now) => containersWith(now, { image: `img:${Math.floor(z * 4)}` }),
  (z, now) => containersWith(now, { env: [{ name: 'E', value: `${Math.floor(z * 4)}` }] }),
  (z) => ({ template: { metadata: { labels: { tier: `${Math.floor(z * 4)}` } } } }),
  (z) => ({ template: { metadata: { annotations: { sum: `${Math.floor(z * 4)}` } } } }),
  (z, now) =>
    containersWith(now, { resources: { requests: { cpu: `${100 + Math.floor(z * 4) * 100}m` } } }),
];

/** How often a move is in the urn; else once. */
const WEIGHTS = `
2 dip suspend breakTemplate deleteCluster refuse quota fallSilent removeNode shutdown taint preempt
2 night forge admission stale silentUnheard retention strategy restore evict unready deleteClaim
2 compact
3 touch ask kill cutOff crash failPod mishaps lag
4 drain template
6 deletePod
8 scale
10 stumble`;
const weightOf = (what: string): number =>
  Number.parseInt(WEIGHTS.split('\n').find((row) => row.split(' ').includes(what)) ?? '1');
const MOVES: Readonly<Record<string, Deed>> = {
  scale: editing(({ y }) => ({ replicas: oneOf([0, 1, 2, 3, 4, 5, 8], y) })),
  /** Fewer replicas for a moment. */
  dip: toCluster((s, now, { y }) => {
    const { replicas } = now.spec;
    if (!replicas) return undefined;
    const text = scale(s, now, Math.floor(replicas / 2));
    return during(s, spanOf(y, 5, 5000), text, () => scale(s, now, replicas));
  }),
  /** Somebody notes something on an object of ours; it is none of our business. */
  touch: toOne((s) => [...anyPods(s), ...claimsOf(s.t), ...claimsOf(s.t)])((s, o, { y }) =>
    patchObject(s, o, note('seen', `${y}`), `touch ${o.metadata.name}`),
  ),
  /** Many more replicas; or, before a slow operator has made them, as few as before. */
  surge: toCluster((s, now, { y, z }) => {
    const most = 10 + Math.floor(y * 20);
    if (z < 0.5) return scale(s, now, most);
    const ms = spanOf(z, 100, 2000); // Each way.
    for (const faults of s.faults.values()) faults.latencyMs = [ms, ms];
    s.t.ledger.passMs += 12 * ms;
    s.witness.slowMs = Math.max(s.witness.slowMs, 3000 + 6 * ms);
    during(s, 30 * ms, '', () => s.faults.forEach((faults) => delete faults.latencyMs));
    return during(s, 6 * ms, scale(s, now, most), () => scale(s, now, now.spec.replicas));
  }),
  retention: editing(({ y, z }) => {
    const policy = z < 0.5 ? 'Retain' : 'Delete';
    return { persistentVolumeClaimRetentionPolicy: { [oneOf(MOMENTS, y)]: policy } };
  }),
  replacementPolicy: editing(({ y }) => ({
    replacementPolicy: y < 0.5 ? 'Always' : 'WhenVolumesLost',
  })),
  ordering: editing(({ y }) => ({ podManagementPolicy: oneOf(['Parallel', 'OrderedReady'], y) })),
  minReady: editing(({ y }) => ({ minReadySeconds: Math.floor(y * 10) })),
  liveness: editing(({ y, z }) => ({
    liveness: {
      maxReplacements: oneOf([null, 0, 1, 2, '100%'], y),
      nodeUnreachableSeconds: spanOf(z, 3, 60),
      ...(y > 0.8 && { startupSeconds: 5, maxRestarts: 1 }), // A broken template costs members.
    },
  })),
  template: editing(({ y, z }, now) => oneOf(templates, y)(z, now)),
  strategy: editing(({ y, z }) => ({
    updateStrategy: {
      type: z < 0.9 ? 'RollingUpdate' : 'OnDelete',
      rollingUpdate: oneOf<Rec>(
        [
          { podUpdatePolicy: 'Recreate' },
          { podUpdatePolicy: 'Replace', maxSurge: Math.floor(z * 3) },
          { podUpdatePolicy: 'InPlaceIfPossible' },
          { podUpdatePolicy: 'InPlaceOnly' },
          { maxUnavailable: 1 + Math.floor(z * 3) },
          { partition: Math.floor(z * 4) },
          { paused: z < 0.3 },
        ],
        y,
      ),
    },
  })),
  /** Its pods go and come back as themselves; or the node of one dies meanwhile, for longer than it
   *  is waited for, and no status can be written. */
  suspend: named((s, name, { y, z }) => {
    const set = (suspend: boolean) =>
      patchCluster(s, name, { spec: { suspend } }, `suspend ${name}`);
    const [pod] = livePods(s.t, name).filter(isUp);
    const node = pod ? nodeOfPod(pod) : '';
    if (z < 0.5 || node === '') return during(s, spanOf(y), set(true), () => set(false));
    s.t.actors.kill(node);
    denies(s, ['patch'], 'statefulclusters/status', spanOf(y, 10_000, 100_000));
    during(s, 110_000, '', () => s.t.actors.revive(node));
    return during(s, 1000, `${node} dies; ${set(true)}, no status`, () => set(false));
  }),
  restore: toOne(retiredClaims)((s, claim) => {
    const all = retiredClaims(s).filter((o) => memberKey(o) === memberKey(claim));
    for (const o of all) patchObject(s, o, note(MARK.restore, 'true'));
    return `restore ${memberKey(claim)}`;
  }),
  /** A template that cannot work, for a while. */
  breakTemplate: toCluster((s, now, { y, z }) => {
    const { name } = now.metadata;
    const image = oneOf(['bad', 'crash', 'missing', ''], z);
    const change = (to: string): Rec => containersWith(now, { image: to });
    const text = patchCluster(s, name, { spec: change(image) }, `${name} ${image}`);
    const mend = (): string => patchCluster(s, name, { spec: change('img:9') });
    return during(s, spanOf(y, 500, 90_000), `the template breaks: ${text}`, mend);
  }),
  grow: editing(({ y }, now) => {
    const spec = { resources: { requests: { storage: `${oneOf([1, 2, 3], y)}Gi` } } };
    const all = (now.spec as Rec)['volumeClaimTemplates'] as Rec[];
    return { volumeClaimTemplates: all.map((c) => mergePatch(c, { spec })) };
  }),
  deleteCluster: named((s, name, { y, z }) => {
    const propagationPolicy = oneOf(['Background', 'Background', 'Foreground', 'Orphan'], y);
    const what = `${propagationPolicy} delete ${name}`;
    const text = removeObject(s, `${clusterAt('default')}/${name}`, { propagationPolicy }, what);
    if (z < 0.3) return `${text}; ${comesBack(s, name)}`;
    return during(s, spanOf(z, 1, 30_000), `${text}, away`, () => comesBack(s, name));
  }),
  deletePod: toPod((s, pod, { y }) => {
    const options = oneOf([{}, {}, { gracePeriodSeconds: 0 }], y);
    const how = 'gracePeriodSeconds' in options ? 'force-delete' : 'delete';
    return removeObject(s, pathAt(pod), options, `${how} ${pod.metadata.name}`);
  }),
  evict: toPod(evicts),
  failPod: toPod((s, pod, { y }) => {
    const reason = oneOf(['Error', 'Evicted', 'OutOfcpu', 'Completed'], y);
    return byKubelet(`${pod.metadata.name} fails: ${reason}`, () => failPod(s.t, pod, reason));
  }),
  /** Again and again each pod fails, or one of its containers does. */
  failAll: named((s, name, { y, z }) => {
    const { crash } = s.t.actors;
    const stop = repeats(s, 400, () => {
      for (const pod of livePods(s.t, name).filter(isUp))
        byKubelet('', () => (z < 0.5 ? failPod(s.t, pod) : crash('default', pod.metadata.name)));
    });
    return during(s, spanOf(y, 1000, 90_000), `each pod of ${name} fails`, stop);
  }),
  crashPod: toPod((s, { metadata: { name } }) =>
    byKubelet(`${name} crashes`, () => s.t.actors.crash('default', name)),
  ),
  unready: toPod((s, { metadata: { name } }, { y }) => {
    const set = (ready: boolean) => () => s.t.actors.setReady('default', name, ready);
    const did = byKubelet(`${name} is not Ready`, set(false));
    return did && during(s, spanOf(y, 500, 60_000), did, () => void byKubelet('', set(true)));
  }),
  deleteClaim: toClaim((s, claim) =>
    removeObject(s, pathAt(claim), {}, `delete claim ${claim.metadata.name}`),
  ),
  /** A member is to be replaced; or nobody can end it, and a loss before it needs no successor. */
  ask: (s, move) => {
    const ask = patching('replace', note(MARK.replace, 'true'));
    const name = oneOf(clusterNames(s), move.y);
    const [lost, next] = livePods(s.t, name).filter(isUp);
    const { replicas = 1 } = (clusterNow(s.t, name) as Seen | undefined)?.spec ?? {};
    if (move.z < 0.7 || !lost || !next || replicas < 2) return ask(s, move);
    const { state } = s.t.sim;
    patchCluster(s, name, { spec: { replicas: replicas - 1 } });
    removeObject(s, pathAt(lost), { gracePeriodSeconds: 0 });
    s.t.sim.at(8000, () => {
      state.refuse = (verb, plural) =>
        (verb !== 'create' && plural === 'persistentvolumeclaims') || verb === 'delete'
          ? DENIED
          : undefined;
      patchObject(s, next, note(MARK.replace, 'true'));
      during(s, spanOf(move.z, 500, 9000), '', () => void delete state.refuse);
    });
    return `${fullName(lost)} goes with a replica; ${fullName(next)} is to be replaced, in vain`;
  },
  /** All are to be replaced; or so while the first is being updated in place. */
  askAll: named((s, name, { y, z }) => {
    const ask = (): void => {
      for (const pod of livePods(s.t, name)) patchObject(s, pod, note(MARK.replace, 'true'));
    };
    const now = clusterNow(s.t, name) as Seen | undefined;
    if (!now || z < 0.5) return (ask(), `replace all of ${name}`);
    const rollingUpdate = { podUpdatePolicy: 'InPlaceIfPossible', partition: 0, paused: false };
    const updateStrategy = { type: 'RollingUpdate', rollingUpdate };
    const spec = { ...containersWith(now, { image: `img:${Math.floor(z * 40)}` }), updateStrategy };
    const text = patchCluster(s, name, { spec }, `update ${name}`);
    const who = oneOf(operatorNames(s), y);
    const what = `${text}; when it changes a pod in place, all are to be replaced`;
    return strikes(s, who, what, ({ path, body }) => {
      const isIt =
        path.startsWith(`${space}/pods/${name}-`) &&
        `${JSON.stringify(body)}`.includes(MARK.inPlace);
      if (!isIt) return false;
      s.t.sim.at(spanOf(y, 20, 200), ask);
      return undefined;
    });
  }),
  cost: patching('cheap', note(MARK.deletionCost, '-5')),
  /** Our labels go from a pod; or from one that cannot go, as its kubelet is away. */
  stripLabels: toPod((s, pod, { y, z }) => {
    const metadata = { labels: { [MARK.cluster]: null, [MARK.identity]: null } };
    if (z < 0.5) return patchObject(s, pod, metadata, `labels off ${pod.metadata.name}`);
    const node = nodeOfPod(pod);
    if (node === '') return undefined;
    s.t.actors.kill(node);
    removeObject(s, pathAt(pod), {});
    s.t.sim.at(1000, () => patchObject(s, pod, metadata));
    const text = `${fullName(pod)} is going on ${node}, which is away; labels off`;
    return during(s, spanOf(y, 2000, 120_000), text, () => s.t.actors.revive(node));
  }),
  stripOwner: patching('owner off', { ownerReferences: null }),
  takeOut: patching('take out', { labels: { app: 'mine' } }),
  /** A bare or a foreign pod that carries our labels. */
  intrude: named((s, name, { y, z }) => {
    const identity = oneOf(['abc', 'abd'], z);
    const sets = '/apis/apps/v1/namespaces/default/statefulsets';
    s.t.sim.api('POST', sets, { metadata: { name: 's' } });
    const { body: set } = s.t.sim.api('GET', `${sets}/s`);
    const { uid } = (set as Seen).metadata; // It is there, or its pod were garbage.
    const owner = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: 's', uid };
    const ownerReferences = y < 0.5 ? [{ ...owner, controller: true }] : [];
    const labels = { app: name, [MARK.cluster]: name, [MARK.identity]: identity };
    const metadata = { name: `${name}-${identity}`, labels, ownerReferences };
    const whose = y < 0.5 ? 'foreign' : 'bare';
    const pod = { metadata, spec: bare.template.spec };
    if (y >= 0.25) return wish(s, 'POST', `${space}/pods`, pod, `${whose} pod ${metadata.name}`);
    const made = y < 0.15 && note(MARK.claims, ''); // As if it were the operator's.
    const claim = { metadata: { ...metadata, ...made, name: `data-${metadata.name}` } };
    const body = { ...claim, spec: netClaim()['spec'] };
    return wish(s, 'POST', claimsAt, body, `${whose} claim of ${identity}`);
  }),
  /** A foreign object takes the next name that an operator draws. */
  squat: toOperator((s, who, { y }) => {
    const plural = y < 0.5 ? 'pods' : 'persistentvolumeclaims';
    const kind = y < 0.5 ? 'Pod' : 'PersistentVolumeClaim';
    const spec = y < 0.5 ? bare.template.spec : netClaim()['spec'];
    return strikes(s, who, `a ${kind} takes the next name`, (request) => {
      if (request.method !== 'POST' || !request.path.startsWith(`${space}/${plural}?field`))
        return false;
      const { name } = (request.body as Seen).metadata;
      if (op.birthSecond(name.slice(-10)) < 0) return false; // An adopted one has but one name.
      s.t.sim.api('POST', `${space}/${plural}`, { kind, metadata: { name }, spec });
      return undefined;
    });
  }),
  pause: named((s, name, { y }) => {
    const mark = (value: string | null): unknown =>
      patchCluster(s, name, { metadata: { annotations: { [MARK.paused]: value } } });
    mark('true');
    return during(s, spanOf(y), `pause ${name}`, () => mark(null));
  }),
  wipeStatus: named((s, name, { y }) => {
    const lie = { replicas: 99, members: [], conditions: null, newestIdentity: 'x' };
    const status = y < 0.6 ? null : lie;
    s.t.ledger.reasons.clear(); // Of a member without claims nothing else told.
    return patchCluster(s, `${name}/status`, { status }, `status of ${name} wiped`);
  }),
  beat: named((s, name, { y }) => {
    const stop = repeats(s, 37, () =>
      patchCluster(s, name, { metadata: note('beat', `${s.t.sim.uptime()}`) }),
    );
    return during(s, spanOf(y, 50, 10_000), `${name} is edited all the time`, stop);
  }),
  refuse: (s, { x, y }) => {
    const { state } = s.t.sim;
    const plural = oneOf(['pods', 'pods', 'persistentvolumeclaims'], x);
    state.refuse = (verb, resource) =>
      verb === 'create' && resource === plural ? DENIED : undefined;
    return during(s, spanOf(y), `a webhook refuses ${plural}`, () => void delete state.refuse);
  },
  quota: (s, { x, y, z }) => {
    const hard = { [oneOf(['pods', 'persistentvolumeclaims'], x)]: `${Math.floor(z * 6)}` };
    const path = `${space}/resourcequotas`;
    const set = (spec: Rec) => wish(s, 'POST', path, { metadata: { name: 'q' }, spec }, 'quota');
    const [who, faults] = oneOf([...s.faults], y);
    const end = (): void => {
      s.t.sim.api('DELETE', `${path}/q`);
      delete faults.lagMs;
    };
    if (x > 0.7)
      return strikes(s, who, 'a pod is made unheard and unseen in a full quota', (request) => {
        if (request.method !== 'POST' || !request.path.startsWith(`${space}/pods?f`)) return false;
        faults.lagMs = { pods: 8000 };
        s.witness.slowMs = 130_000;
        s.t.sim.at(2, () => void set({ hard: { pods: '0' } }));
        during(s, spanOf(y), '', end);
        return 'lost';
      });
    const text = set({ hard });
    return during(s, spanOf(y), `${text} ${JSON.stringify(hard)}`, end);
  },
  rights: (s, { x, y }) => {
    const resource = oneOf(['pods', 'nodes', 'persistentvolumeclaims', 'persistentvolumes'], x);
    return denies(s, allVerbs, resource, spanOf(y));
  },
  /** The CRD goes, and with it every cluster; both come again. */
  crd: (s, { y }) => {
    const text = wish(s, 'DELETE', `${crdsAt}/statefulclusters.enge.me`, {}, 'CRD removed');
    return during(s, spanOf(y), text, () => {
      s.t.sim.api('POST', crdsAt, crdOnly()[0]);
      for (const name of clusterNames(s)) comesBack(s, name);
    });
  },
  kill: trouble('kill'),
  cutOff: trouble('cutOff'),
  /** One node after the other falls silent, and they return in another order. */
  fallSilent: (s, { x, y, z }) => {
    const nodes = nodeNames(s).slice(Math.floor(x * 2));
    const ms = spanOf(y, 500, 9000);
    nodes.forEach((node, i) => {
      s.t.sim.at(i * ms, () => s.t.actors.cutOff(node));
      const back = spanOf(z, 20_000, 60_000) + (nodes.length - i) * ms;
      s.t.sim.at(back, () => s.t.actors.revive(node));
    });
    return `${nodes.join(' ')} fall silent, ${ms / 1000} s apart`;
  },
  removeNode: trouble('removeNode'),
  shutdown: trouble('drainShutdown'),
  outOfService: toNode((s, node, { y }) => {
    if (objectOf(s.t.sim.state, 'nodes', '', node)) outOfService(s.t, node);
    return during(s, spanOf(y, 1000, 90_000), `${node} is out of service`, () => {
      setTaints(s, node, []);
      s.t.actors.revive(node);
    });
  }),
  /** A node is cordoned and emptied by evictions, as `kubectl drain` does; or all of them are. With
   *  a budget for disruptions they go one by one. */
  drain: (s, { x, y, z }) => {
    const nodes = z < 0.2 ? nodeNames(s) : [oneOf(nodeNames(s), x)];
    const cordon = (unschedulable: true | null): void => {
      for (const node of nodes)
        s.t.sim.api('PATCH', `/api/v1/nodes/${node}`, { spec: { unschedulable } }, MERGE_PATCH);
    };
    const evict = (): void => {
      const pods = anyPods(s).filter((o) => nodes.includes(nodeOfPod(o)) && !isGoing(o));
      for (const pod of z < 0.6 ? pods.slice(0, 1) : pods) evicts(s, pod);
    };
    cordon(true);
    const stop = y < 0.9 ? repeats(s, 1500, evict) : undefined; // Or it is cordoned only.
    return during(s, spanOf(y, 1000, 120_000), `${nodes.join(' ')} drained`, () => {
      stop?.();
      cordon(null);
    });
  },
  /** Somebody's taint, which says that the node takes no pods; or Kubernetes' own, of a trouble. */
  taint: toNode((s, node, { y, z }) => {
    const own = ['memory-pressure', 'network-unavailable'].map(
      (one) => `node.kubernetes.io/${one}`,
    );
    const key = oneOf(['maintenance', 'maintenance', ...own], z);
    const effect = z < 0.25 || z > 0.9 ? 'NoExecute' : 'NoSchedule';
    const text = setTaints(s, node, [{ key, effect }], `${node} ${key} ${effect}`);
    return during(s, spanOf(y, 1000, 120_000), text, () => setTaints(s, node, []));
  }),
  /** The scheduler makes room for another pod. */
  preempt: toPod((s, pod) => {
    const { conditions = [] } = pod.status ?? {};
    const why = { type: 'DisruptionTarget', status: 'True', reason: 'PreemptionByScheduler' };
    const status = { conditions: [...conditions, { ...why, lastTransitionTime: null }] };
    wish(s, 'PATCH', `${pathAt(pod)}/status`, { status }, '');
    return removeObject(s, pathAt(pod), {}, `${fullName(pod)} is preempted`);
  }),
  /** All nodes are taken away over night, and the operator with them. */
  night: (s, { y }) => {
    const ms = spanOf(y, 2000, 120_000);
    nodeNames(s).forEach(s.t.actors.removeNode);
    for (const who of s.faults.keys()) {
      s.t.sim.kill(who);
      restarts(s, who, ms + 500);
    }
    return during(s, ms, 'no node, no operator', () => nodeNames(s).forEach(s.t.actors.revive));
  },
  /** Who may only create claims and pods forges names, labels and marks of ours. */
  forge: named((s, name, { y, z }) => {
    const [member] = livePods(s.t, name);
    const identity =
      y < 0.4 && member ? identityIn(member) : oneOf(['zzzzzzz222', '2j8dxm4222'], y);
    const labels = { app: name, [MARK.cluster]: name, [MARK.identity]: identity };
    const marks = {
      [MARK.retired]: oneOf(['ScaledIn', 'NodeGone'], y),
      [MARK.retiredAt]: oneOf(['2026-01-01T00:00:05Z', '+275760-09-13T00:00:00Z'], z),
      [MARK.retiredPolicy]: 'Delete',
    };
    const template = oneOf(['data', 'log', 'x'], z * 7 - Math.floor(z * 7));
    const claim = `${template}-${name}-${identity}`;
    const metadata = { name: claim, labels, annotations: z < 0.6 ? marks : {} };
    const body = { metadata, spec: netClaim()['spec'] };
    if (z < 0.7) return wish(s, 'POST', claimsAt, body, `forge ${claim}`);
    const pod = { name: `${name}-${identity}`, labels, annotations: note(MARK.deletionCost, '-9') };
    const text = `forge pod ${pod.name}`;
    return wish(s, 'POST', `${space}/pods`, { metadata: pod, spec: bare.template.spec }, text);
  }),
  /** A mutating webhook names digests, adds to pods and claims, or changes a selector's label. */
  admission: (s, { y, z }) => {
    const { state } = s.t.sim;
    const way = oneOf(['digests', 'more', 'more', 'selector'], z);
    state.mutate = (verb, plural, object) => {
      const { metadata, spec, ...rest } = object as unknown as Seen;
      const is = (one: string): boolean => way === one && plural === 'pods';
      const image = (c: Rec): Rec => ({ ...c, image: `${c['image']}`.replace(/(@.*)?$/, '@sha') });
      const more = { ...metadata, labels: { ...metadata.labels, injected: 'yes' } };
      const moved = { ...metadata, labels: { ...metadata.labels, app: 'other' } };
      const changed = is('digests')
        ? { metadata, spec: { ...spec, containers: (spec.containers ?? []).map(image) } }
        : way === 'more' && /^(pods|persistentvolumeclaims)$/.test(plural)
          ? { metadata: more, spec }
          : { metadata: is('selector') && verb === 'create' ? moved : metadata, spec };
      return { ...rest, ...changed } as unknown as typeof object;
    };
    setFact(s, 'moved by admission', way === 'selector');
    return during(s, spanOf(y, 500, 60_000), `admission: ${way}`, () => {
      delete state.mutate;
      setFact(s, 'moved by admission', false);
    });
  },
  /** A node is out of service, comes back unheard, and gets new pods. */
  unheard: toNode((s, node, { y, z }) => {
    const { sim } = s.t;
    const [, faults] = oneOf([...s.faults], z);
    if (objectOf(sim.state, 'nodes', '', node)) outOfService(s.t, node);
    const back = (): void => {
      faults.frozen = new Set(['nodes']);
      setTaints(s, node, []);
      s.t.actors.revive(node);
      sim.at(3000, () => {
        const [pod] = anyPods(s);
        if (pod) removeObject(s, pathAt(pod), { gracePeriodSeconds: 0 });
      });
      during(s, 30_000, '', () => delete faults.frozen);
    };
    s.witness.slowMs = 130_000;
    return during(s, spanOf(y, 1000, 20_000), `${node} is out of service, to return unheard`, back);
  }),
  stumble: (s, { x, y, z }) => {
    const all: Mishap[] = ['crash-before', 'crash-after', 'lost', 'hang', 'reset', 503, 504, 429];
    const mishap = oneOf(all, x);
    const method = oneOf(['POST', 'PATCH', 'DELETE', 'GET', ''], z);
    let rest = Math.floor(y * 12);
    const who = oneOf(operatorNames(s), z * 7 - Math.floor(z * 7));
    const what = `${mishap} at its ${method || 'request'} number ${rest}`;
    if (mishap === 'hang') s.t.ledger.passMs += op.BOUNDS.requestMs; // The pass waits for it.
    return strikes(s, who, what, (request) => {
      if (method !== '' && request.method !== method) return false;
      return rest-- > 0 ? false : mishap;
    });
  },
  crash: toOperator((s, who, { y }) => {
    s.t.sim.kill(who);
    restarts(s, who, spanOf(y, 1, 30_000));
    return `${who} is killed, back after ${spanOf(y, 1, 30_000) / 1000} s`;
  }),
  /** An operator starts anew, and the API server it asks lags behind. */
  laggard: toOperator((s, who, { y, z }) => {
    const { sim } = s.t;
    const snapshot = snapshotState(sim.state);
    const ms = spanOf(y, 100, 20_000);
    const { epoch } = sim.state;
    sim.at(ms, () => {
      if (sim.state.epoch === epoch)
        sim.state.old = { snapshot, until: sim.now() + spanOf(z, 1000, 30_000) };
      sim.kill(who);
      restarts(s, who, 5);
    });
    return `${who} starts anew in ${ms / 1000} s, before a server that knows the present`;
  }),
  /** It stands still; or whoever leads does in the midst of a pass, and wakes with writes left. */
  freeze: toOperator((s, who, { y, z }) => {
    const isMidway = z >= 0.5;
    const ms = spanOf(y, isMidway ? 20_000 : 1000, 80_000); // It is over before silence is due.
    s.t.ledger.passMs += Math.min(ms, op.BOUNDS.oldMs);
    s.witness.slowMs = 200_000;
    s.t.ledger.recentMs += ms;
    const text = `is frozen for ${ms / 1000} s`;
    if (!isMidway) return (s.t.sim.suspend(who, ms), `${who} ${text}`);
    let done = false;
    for (const one of operatorNames(s))
      strikes(s, one, '', ({ method, path }) => {
        if (done || method === 'GET' || /leases|events|status/.test(path)) return false;
        done = true;
        return void s.t.sim.suspend(one, ms);
      });
    return `who writes next ${text}`;
  }),
  /** A second process of the same operator, as when a node comes back; one of them ends. */
  overlap: (s, { y }) => {
    const who = 'operator-x';
    if (s.faults.size > 1) return 'no third operator';
    s.faults.set(who, {});
    s.t.ledger.operators = s.faults.size;
    goesUp(s, who);
    return during(s, spanOf(y, 10, 20_000), 'a second operator runs', () => {
      s.t.sim.kill(who);
      s.up.delete(who);
      s.faults.delete(who);
    });
  },
  mishaps: suffering((_, { x, z }) => ({ chance: [[oneOf(mishaps, x), 0.1 + z * 0.4]] })),
  lag: suffering((_, { x, z }) => ({ lagMs: { [oneOf(KINDS, x)]: spanOf(z, 100, 8000) } })),
  stale: suffering((_, { x }) => ({ frozen: new Set([oneOf(KINDS, x)]) })),
  replay: suffering(() => ({ replay: 0.3 })),
  expired: suffering(() => ({ expired: 0.5 })),
  deaf: suffering(() => ({ deaf: true })),
  partition: suffering(() => ({ cut: true })),
  slow: suffering((s, { x }) => {
    s.t.ledger.passMs += 12 * spanOf(x, 10, 2000);
    return { latencyMs: [1, spanOf(x, 10, 2000)] };
  }),
  clock: suffering((_, { x }) => ({ clockMs: oneOf([-3_600_000, 3_600_000, -5000, 5000], x) })),
  down: (s, { y }) => {
    s.t.sim.down = true;
    s.witness.slowMs = 130_000;
    return during(s, spanOf(y), 'the API server is away', () => (s.t.sim.down = false));
  },
  compact: (s, { y }) => {
    compact(s.t.sim.state);
    s.t.sim.wake();
    if (y < 0.5) return 'etcd is compacted';
    s.t.sim.hangUp();
    return 'etcd is compacted, and every stream ends';
  },
  /** etcd is put back to what it was a while ago; no API server runs meanwhile. */
  etcd: (s, { y, z }) => {
    const { sim } = s.t;
    const old = snapshotState(sim.state);
    return during(s, spanOf(y), 'etcd is saved, and restored: good', () => {
      sim.down = true;
      restoreState(sim.state, old);
      sim.kill('actors'); // Everything is restarted, as the manual of etcd says.
      const end = (): void => {
        sim.down = false;
        sim.kill('actors');
        s.t.actors = newActors(sim, settingOf(s.script));
      };
      tell(s, during(s, spanOf(z, 500, 20_000), 'etcd is restored, away', end));
    });
  },
  /** A node falls silent and comes back unheard; or it falls silent once more meanwhile. */
  silentUnheard: toNode((s, node, { y, z }) => {
    const [, faults] = oneOf([...s.faults], z);
    const { cutOff, revive } = s.t.actors;
    cutOff(node);
    s.witness.slowMs = 130_000;
    return during(s, spanOf(y, 12_000, 50_000), `${node} is silent, to return unheard`, () => {
      faults.frozen = new Set(['nodes']);
      revive(node);
      if (z < 0.5) during(s, 2000, '', () => cutOff(node));
      during(s, 20_000, '', () => delete faults.frozen);
      during(s, spanOf(y, 40_000, 90_000), '', () => revive(node));
    });
  }),
};

// ─── Playing ────────────────────────────────────────────────────────────────────────────────────

// What is checked beyond the invariants of the scenarios: that a Reason is true and due (I10), that
// the brake held, creations wait after early ends, nothing runs hot, and leaders take turns.

/** What the checker saw of the world. */
const newWitness = () => ({
  hash: createHash('sha256'),
  facts: new Map<string, number>(), // A fact → until when it held (uptime); Infinity: it does.
  since: new Map<string, number>(), // … and since when.
  ends: new Map<string, number[]>(), // Cluster → when its members ended early by themselves.
  born: new Map<string, number>(), // UID → when.
  names: new Set<string>(), // Members that ever were.
  clusters: new Map<string, string>(), // UID → name.
  nodes: new Map<string, string>(), // Member → the node of its last pod.
  over: new Set<string>(), // Processes after which another has written.
  rate: [] as number[], // When operators wrote, of the last 10 s.
  writer: '',
  requests: 0,
  most: 0, // Members that any spec asked for.
  slowMs: 3000, // So much later may an operator know what happened.
  blindAt: -Infinity, // When one of its reads last failed.
  troubleAt: 0, // When a request of an operator last failed, or one of them started.
  startedAt: new Map<string, number>(), // Operator → when its process did.
});
function setFact({ t, witness: { facts, since } }: Trial, fact: string, is: boolean): void {
  if (is && facts.get(fact) !== Infinity) since.set(fact, t.sim.uptime());
  if (is) facts.set(fact, Infinity);
  else if (facts.get(fact) === Infinity) facts.set(fact, t.sim.uptime());
}
/** Does it hold, or did it so lately that a pass may rest on it? */
const held = ({ t, witness }: Trial, fact: string, withinMs = t.ledger.passMs): boolean =>
  (witness.facts.get(fact) ?? -Infinity) >= t.sim.uptime() - withinMs;
/** Does it hold, for longer than an operator may be ignorant of it? */
const isKnown = ({ t, witness }: Trial, fact: string): boolean =>
  witness.facts.get(fact) === Infinity &&
  (witness.since.get(fact) ?? Infinity) <= t.sim.uptime() - witness.slowMs - t.ledger.passMs;
const disruptionOf = (pod: Seen | undefined): string =>
  pod?.status?.conditions?.find((c) => c.type === 'DisruptionTarget' && c.status === 'True')
    ?.reason ?? '';

const OF_KUBERNETES = /^node\.(cloudprovider\.)?kubernetes\.io\//;
function seeNode(s: Trial, { type, object }: SeenChange): void {
  const { name } = object.metadata;
  const keys = (object.spec.taints ?? []).map((t) => `${t['key']}`);
  const isOut = keys.some((key) => key.endsWith('out-of-service'));
  const isGone = type === 'DELETED';
  const isBarred = object.spec.unschedulable || keys.some((key) => !OF_KUBERNETES.test(key));
  setFact(s, `absent ${name}`, isGone);
  setFact(s, `silent ${name}`, !isGone && !isUp(object));
  setFact(s, `out ${name}`, !isGone && isOut);
  setFact(s, `closed ${name}`, !isGone && isUp(object) && isBarred === true);
  setFact(s, `cordon ${name}`, !isGone && object.spec.unschedulable === true);
  const isOpen = isUp(object) && keys.length === 0 && !object.spec.unschedulable;
  setFact(s, `open ${name}`, !isGone && isOpen);
}
function seePod(s: Trial, { type, object, previous }: SeenChange, who: string): void {
  const key = fullName(object);
  if (isOperator(who) && (type === 'ADDED' || isGoing(object))) checkLeave(s, object);
  if (type === 'ADDED' && isOperator(who)) {
    checkNew(s, object);
    checkPatience(s, object);
    const mounts = claimsIn(object).some((name) => isKnown(s, `going default/${name}`));
    hold(!mounts || isLost(s.t.ledger), 'I1', object, 'a claim of it is being deleted');
    checkIndexIsFree(s, object);
  }
  if (previous && isOperator(who)) checkAdoption(s, object, previous);
  if (type === 'ADDED') s.witness.born.set(object.metadata.uid, s.t.sim.uptime());
  const { metadata } = object;
  const cluster = labelOf(object, MARK.cluster);
  const waiting = JSON.stringify((object.status as Raw | undefined)?.['containerStatuses'] ?? '');
  const isOver = type === 'DELETED' || isGoing(object) || hasFinished(object);
  if (nodeOfPod(object)) s.witness.nodes.set(key, nodeOfPod(object));
  setFact(s, `asked ${key}`, noteOf(object, MARK.replace) === 'true');
  setFact(s, `unready ${key}`, !isUp(object));
  setFact(s, `placed ${key}`, nodeOfPod(object) !== '');
  setFact(s, `crashing ${key}`, waiting.includes('CrashLoopBackOff'));
  setFact(s, `outside ${key}`, metadata.labels?.['app'] !== cluster || !isOurs(object));
  setFact(s, `idle ${key}`, isOver || object.status?.phase === 'Pending');
  setFact(s, `taken ${key}`, isGoing(object) || hasFinished(object));
  setFact(s, `gone ${key}`, type === 'DELETED');
  setFact(s, `marked ${key}`, disruptionOf(object) === 'DeletionByTaintManager');
  setFact(s, `collected ${key}`, disruptionOf(object) === 'DeletionByPodGC');
  if (isUp(object)) setFact(s, `up ${metadata.uid}`, true);
  setFact(s, `live ${key}`, !isOver && !s.t.ledger.ended.has(key));
  if (type === 'ADDED') return setFact(s, `deleted ${key}`, false);
  const ends = previous && !isGoing(previous) && (type === 'DELETED' || isGoing(object));
  const isEvicted = disruptionOf(previous) !== '' || noteOf(previous, MARK.returns) !== '';
  if (ends && !isOperator(who) && !isEvicted) setFact(s, `deleted ${key}`, true);
  if (!ends || !isOperator(who) || noteOf(previous, MARK.returns) !== 'Recreated') return;
  checkTrial(s, object);
  const pins = pinsOf(s, key);
  const isHeld = pins.length > 0 && pins.every((pin) => isBarredFor(s, pin));
  hold(!isHeld, 'I10', object, `it could not come back to ${pins.join(' ')}`);
}
/** Nothing is made or deleted for a cluster that is known to be paused, or on its way out. */
function checkLeave(s: Trial, o: Seen): void {
  const name = labelOf(o, MARK.cluster);
  if (isLost(s.t.ledger, 120_000)) return;
  for (const word of ['over', 'paused'])
    hold(!isKnown(s, `${word} ${name}`), 'F17', o, `${name} is ${word}`);
}
/** I2: nobody gets an index as long as a pod that has it may still run. */
function checkIndexIsFree(s: Trial, pod: Seen): void {
  const index = labelOf(pod, MARK.index);
  if (!index || s.t.ledger.operators > 1 || isLost(s.t.ledger, 120_000)) return;
  const uid = bossOf(pod)?.['uid'];
  const others = listed(s.t, 'pods').filter(
    (o) =>
      o.metadata.name !== pod.metadata.name &&
      labelOf(o, MARK.index) === index &&
      labelOf(o, MARK.cluster) !== '', // It cannot be seen else.
  );
  const withinMs = s.t.ledger.passMs + op.BOUNDS.requestMs; // A request may land late.
  const isDead = (o: Seen): boolean =>
    ['silent', 'absent', 'out'].some((fact) => held(s, `${fact} ${nodeOfPod(o)}`, withinMs));
  const running = others.filter((o) => bossOf(o)?.['uid'] === uid && !isDead(o)).map(fullName);
  hold(running.length === 0, 'I2', pod, `${running.join(' ')} has index ${index} too`);
}
function seeClaim(s: Trial, { type, object, previous }: SeenChange, who: string): void {
  const key = memberKey(object);
  setFact(s, `going ${fullName(object)}`, type === 'DELETED' || isGoing(object));
  setFact(s, `claimLost ${key}`, object.status?.phase === 'Lost');
  if (isOperator(who) && (type === 'ADDED' || isGoing(object))) checkLeave(s, object);
  setFact(s, `claimAsked ${key}`, noteOf(object, MARK.replace) === 'true');
  setFact(s, `foreign ${fullName(object)}`, type !== 'DELETED' && !isMade(object));
  if (markOf(object)) setFact(s, `live ${key}`, false);
  setFact(s, `retired ${key}`, markOf(object) !== '');
  if (!isOperator(who)) return;
  if (type === 'ADDED') {
    s.witness.born.set(object.metadata.uid, s.t.sim.uptime());
    checkNew(s, object);
    checkPatience(s, object);
  }
  if (previous) checkAdoption(s, object, previous);
  const reason = markOf(object);
  if (!previous || !reason || markOf(previous)) return;
  const marked = ownClaims(s.t.ledger, key).filter((o) => markOf(o));
  if (marked.some((o) => o.metadata.name !== object.metadata.name)) return; // As its sibling.
  checkReason(s, object, reason, who);
  if (isJudgement(reason)) checkBrake(s, object);
  if (reason === 'ScaledIn') checkChoice(s, object);
  if (reason === 'Updated') checkTrial(s, object);
  const speaks = ['Unready', 'StartupTimeout', 'CrashLoop'].includes(reason);
  if (!speaks || s.t.sim.now() - op.birthMs(identityIn(object)) > 590_000) return;
  const cluster = labelOf(object, MARK.cluster);
  s.witness.ends.set(cluster, [...(s.witness.ends.get(cluster) ?? []), s.t.sim.uptime()]);
}
function seeCluster(s: Trial, { type, object }: SeenChange): void {
  const { witness } = s;
  if (type === 'ADDED') witness.ends.delete(object.metadata.name); // Nothing is known of them.
  const { uid, name } = object.metadata;
  witness.clusters.set(uid, name);
  setFact(s, `cluster ${uid}`, type !== 'DELETED' && !isGoing(object));
  setFact(s, `over ${name}`, type === 'DELETED' || isGoing(object));
  setFact(s, `paused ${name}`, noteOf(object, MARK.paused) === 'true');
  witness.most = Math.max(witness.most, object.spec.replicas ?? 1);
}
const seeAny = { nodes: seeNode, pods: seePod, persistentvolumeclaims: seeClaim } as const;
const see = { ...seeAny, statefulclusters: seeCluster } as const;

/** The nodes that its volumes name; ANY where nobody can tell. */
function pinsOf(s: Trial, key: string): readonly string[] {
  const { state } = s.t.sim;
  return ownClaims(s.t.ledger, key).flatMap((claim) => {
    const { volumeName } = claim.spec;
    if (!volumeName) return [noteOf(claim, MARK.selectedNode)].filter(Boolean);
    const volume = objectOf(state, 'persistentvolumes', '', volumeName) as Raw | undefined;
    if (!volume || s.t.sim.uptime() - s.witness.blindAt < 400_000) return [ANY];
    const found = /"values":\["([^"]*)"\]/.exec(JSON.stringify(volume['spec'].nodeAffinity ?? ''));
    return found?.[1] ? [found[1]] : [];
  });
}
const ANY = '*';
const EVER = -Infinity;

/** I10: the Reason that is written is true, or was when the pass looked, and due. */
function checkReason(s: Trial, claim: Seen, reason: string, who: string): void {
  const key = memberKey(claim);
  const { ledger } = s.t;
  const pod = podOfMember(ledger, claim);
  const node = s.witness.nodes.get(key) ?? '';
  // The cluster may have gone since it was read live: its pod still says whose it is.
  const owner = pod?.metadata.ownerReferences?.[0]?.uid;
  const name = labelOf(claim, MARK.cluster);
  const [last] = [...s.witness.clusters].findLast((one) => one[1] === name) ?? [];
  const uid = `${clusterOfPod(ledger, claim)?.metadata.uid ?? owner ?? last}`;
  const specs = recentSpecs(ledger, uid, ledger.passMs); // It is read live just before.
  const isIts = pod && (isOurs(pod) || labelOf(pod, MARK.cluster) !== '');
  const isIdle = !isIts || held(s, `idle ${key}`) || held(s, `absent ${node}`);
  const pins = isIdle ? pinsOf(s, key) : [];
  const some = (...facts: string[]): boolean =>
    pins.includes(ANY) || pins.some((pin) => facts.some((fact) => held(s, `${fact} ${pin}`)));
  const is = (...facts: string[]): boolean => facts.some((fact) => held(s, `${fact} ${key}`));
  const isAlways = specs.some((spec) => spec.replacementPolicy !== 'WhenVolumesLost');
  const isScattered = new Set(pins).size > 1;
  const goneAt = s.witness.since.get(`gone ${key}`) ?? EVER;
  const hadPod = pod !== undefined || goneAt >= s.t.sim.uptime() - ledger.passMs;
  const claims = ownClaims(ledger, key);
  const names = [...claimsOf(s.t), ...listed(s.t, 'pods')].filter((o) => !isMade(o) && !isOurs(o));
  const isTaken = names.some((o) => fullName(o).endsWith(`${key.split('/')[1]}`)) || is('foreign');
  const truths: Readonly<Record<op.EndReason, () => boolean>> = {
    PodDeleted: () =>
      is('deleted') && isAlways && !isBarredFor(s, node) && wasSeenGoing(s, key, who),
    ClaimGone: () => (isIdle || is('outside')) && (losing(s, key, held) || lacksClaim(s, key)),
    ReplaceRequested: () => is('asked', 'claimAsked'),
    Released: () => is('outside') && !isKnown(s, 'moved by admission'),
    NodeOutOfService: () => pins.length > 0 && some('out'),
    NodeGone: () => some('absent', 'out') || isScattered || is('collected'),
    NodeUnreachable: () => (hadPod && held(s, `silent ${node}`)) || some('silent') || is('marked'),
    PodEvicted: () => some('closed') && isAlways,
    VolumeLost: () => isIdle && is('claimLost'),
    Unready: () => is('unready'),
    StartupTimeout: () => is('unready') && node !== '',
    CrashLoop: () => is('crashing', 'unready'),
    ScaledIn: () => isSurplus(s, claim),
    Updated: () => specs.some((spec) => specOfUpdate(spec).podUpdatePolicy === 'Replace'),
    NameTaken: () => isTaken && claims.every(isUnbound),
    IndexTaken: () => ledger.operators > 1 || isLost(ledger, 120_000),
    PodFailed: () => false,
    Suspended: () => false,
  };
  const isTrue = isLost(ledger, 120_000) || truths[reason as op.EndReason]();
  hold(isTrue, 'I10', claim, `${key} is let go as ${reason}, which is not so`);
  const isJudged = isJudgement(reason) || ['PodDeleted', 'NodeOutOfService'].includes(reason);
  const isSuspended = specs.every(({ suspend }) => suspend) && specs.length > 0;
  hold(!isJudged || !isSuspended, 'I10', claim, `${key} is judged while suspended`);
  const isOpen = nodeNames(s).some((name) => held(s, `open ${name}`));
  const isOfVolume = /^(NodeGone|PodEvicted)$/.test(reason) && !is('collected');
  hold(!isOfVolume || isOpen, 'I10', claim, `no node is open, and ${key} is let go as ${reason}`);
  checkDue(s, claim, reason, pins.length > 0 ? pins : [node], specs);
}
/** Is one of its claims being deleted, or gone? */
const losing = (s: Trial, key: string, is: typeof held | typeof isKnown): boolean =>
  [...s.witness.facts.keys()].some(
    (fact) => fact.startsWith('going ') && fact.endsWith(`-${key.split('/')[1]}`) && is(s, fact),
  );
/** ClaimGone of a claim that a pod mounts, or a seal names, and that is not there. */
function lacksClaim(s: Trial, key: string): boolean {
  const { state } = s.t.sim;
  const [space = '', name = ''] = key.split('/');
  const pod = objectOf(state, 'pods', space, name) as Seen | undefined;
  const sealed = ownClaims(s.t.ledger, key).flatMap((o) => noteOf(o, MARK.claims).split(' '));
  return [...(pod ? claimsIn(pod) : []), ...sealed].filter(Boolean).some((claim) => {
    const found = objectOf(state, 'persistentvolumeclaims', space, claim) as Seen | undefined;
    return !found || isForeign(found);
  });
}
/** Does its node not take pods, as an operator knows? */
const isBarredFor = (s: Trial, node: string): boolean =>
  node !== '' &&
  ['absent', 'silent', 'closed', 'out'].some((fact) => isKnown(s, `${fact} ${node}`));
/** A pod that went before this process started ends nothing. */
function wasSeenGoing(s: Trial, key: string, who: string): boolean {
  const { facts, since, startedAt } = s.witness;
  if (s.t.ledger.operators > 1 || facts.get(`gone ${key}`) !== Infinity) return true;
  return (since.get(`gone ${key}`) ?? 0) >= (startedAt.get(who) ?? 0);
}
/** Did what it is judged for last as long as any spec asks? */
function checkDue(s: Trial, claim: Seen, reason: string, nodes: readonly string[], specs: Specs) {
  const key = memberKey(claim);
  const { since, slowMs } = s.witness;
  const on = (fact: string): number =>
    Math.min(...nodes.map((node) => since.get(`${fact} ${node}`) ?? EVER)); // ANY: nobody knows.
  const wasTaken = held(s, `taken ${key}`) && nodes.some((n) => held(s, `cordon ${n}`));
  const rules: Readonly<Record<string, readonly [seconds: string, since: number]>> = {
    NodeGone: ['nodeGoneSeconds', slowMs > 3000 || new Set(nodes).size > 1 ? EVER : on('absent')],
    NodeUnreachable: ['nodeUnreachableSeconds', on('silent')],
    PodEvicted: ['volumeLostSeconds', wasTaken || slowMs > 3000 ? EVER : on('closed')],
    VolumeLost: ['volumeLostSeconds', since.get(`claimLost ${key}`) ?? EVER],
    Unready: ['unreadySeconds', since.get(`unready ${key}`) ?? EVER],
    StartupTimeout: ['startupSeconds', since.get(`placed ${key}`) ?? EVER],
  };
  const [field, from] = rules[reason] ?? [];
  if (!field || from === undefined || isLost(s.t.ledger, 120_000)) return;
  const least = Math.min(...specs.map(({ liveness = {} }) => liveness[field] ?? 0)) * 1000;
  const ms = s.t.sim.uptime() - from;
  hold(ms >= least - 1500, 'I10', claim, `${reason} is so for ${ms} ms, of ${least}`);
}
/** More are live, as far as could be known, than the spec asks for that was in force just now. */
function isSurplus(s: Trial, claim: Seen): boolean {
  const { ledger, sim } = s.t;
  const name = labelOf(claim, MARK.cluster);
  const uid = (clusterNow(s.t, name) as Seen | undefined)?.metadata.uid ?? '';
  const specs = recentSpecs(ledger, uid, ledger.passMs - 2900); // It is read live just before.
  const wanted = Math.min(...specs.map(({ replicas = 1 }) => replicas));
  const live = [...s.witness.facts].filter(
    ([fact, until]) =>
      fact.startsWith(`live default/${name}-`) && until >= sim.uptime() - ledger.recentMs,
  );
  const between = claimsOfCluster(s, name).filter((o) => !markOf(o) && !isGoing(o));
  const all = new Set([...live.map(([fact]) => fact.slice(5)), ...between.map(memberKey)]);
  const isNew = (s.witness.since.get(`cluster ${uid}`) ?? 0) > sim.uptime() - ledger.passMs;
  return isNew || !clusterNow(s.t, name) || new Set([...all, memberKey(claim)]).size > wanted;
}
/** Scale-in takes nobody who is Available while one that is not, as is known, could go. */
function checkChoice(s: Trial, claim: Seen): void {
  const { ledger } = s.t;
  const [pod, boss] = [podOfMember(ledger, claim), clusterOfPod(ledger, claim)];
  if (!pod || !boss || !isUp(pod) || ledger.operators > 1 || isLost(ledger, 120_000)) return;
  const live = liveMembers(ledger, boss.metadata);
  const { uid } = boss.metadata;
  const least = Math.min(...recentSpecs(ledger, uid).map(({ replicas = 1 }) => replicas));
  const worse = [...live].filter((key) => isKnown(s, `unready ${key}`));
  const surplus = new Set([...live, memberKey(claim)]).size - least;
  hold(!worse[0] || worse.length < surplus, 'I5', claim, `${worse.join(' ')} could go before it`);
}
/** I8: whoever adopts is there; the garbage collector would take what names one that is gone. */
function checkAdoption(s: Trial, object: Seen, previous: Seen): void {
  const uid = `${bossOf(object)?.['uid'] ?? ''}`;
  if (!isOurs(object) || uid === bossOf(previous)?.['uid']) return;
  // A pod is adopted right after its cluster was read, a claim at the end; a write may hang.
  const { passMs } = s.t.ledger;
  const withinMs = object.kind === 'Pod' ? passMs - 2900 : passMs + op.BOUNDS.requestMs;
  const is = isLost(s.t.ledger, 120_000) || held(s, `cluster ${uid}`, withinMs);
  hold(is, 'I8', object, `it is adopted by ${uid}, which is gone`);
}
/** What is older than this, an operator knows. */
const newsMs = ({ t: { sim, ledger }, witness: { blindAt, slowMs } }: Trial): number =>
  Math.max(slowMs, sim.uptime() - Math.max(blindAt, ledger.restoredAt) > 60_000 ? 0 : 60_000);
/** A name of the future, on whatever object. */
const isForged = (o: Seen): boolean =>
  op.birthMs(identityIn(o)) > Date.parse(`${o.metadata.creationTimestamp}`) + 3_600_000;
/** I1: a new identity is younger than those of a while, whatever the clock. I4: some spec asked. */
function checkNew(s: Trial, made: Seen): void {
  const { sim, ledger } = s.t;
  const { names, born } = s.witness;
  const key = memberKey(made);
  const own = op.birthSecond(identityIn(made));
  if (names.has(key) || isLost(ledger, 120_000) || own < 0) return void names.add(key);
  names.add(key);
  const ageMs = (o: Seen): number => sim.uptime() - (born.get(o.metadata.uid) ?? Infinity);
  const known = [...anyPods(s), ...claimsOf(s.t).filter(isMade)].filter(
    (o) =>
      labelOf(o, MARK.cluster) === labelOf(made, MARK.cluster) &&
      ageMs(o) > Math.min(60_000, newsMs(s)) + ledger.passMs &&
      op.birthSecond(identityIn(o)) > own &&
      !isForged(o),
  );
  hold(known.length === 0, 'I1', made, 'older ones are younger');
  const boss = clusterOfPod(ledger, made);
  if (!boss) return;
  // Also of a former object of this name, as far as what is made may have been for that.
  const formers = [...s.witness.clusters].flatMap(([uid, name]) =>
    name === boss.metadata.name && held(s, `cluster ${uid}`, newsMs(s)) ? [uid] : [],
  );
  const specs = [...new Set([...formers, boss.metadata.uid])].flatMap((uid) =>
    recentSpecs(ledger, uid, newsMs(s)),
  );
  const surgeOf = (spec: SeenSpec): number => op.maxSurgeOf(clusterOf({ spec }).spec);
  const wanted = specs.map((spec) => (spec.replicas ?? 1) + surgeOf(spec));
  const most = Math.max(...wanted) * ledger.operators + ledger.onTheWire;
  // Whose pod was deleted may end, in vain while that is refused.
  const isRefused = sim.uptime() - s.witness.troubleAt < 60_000;
  const isEnding = (one: string): boolean => isRefused && held(s, `deleted ${one}`);
  const { length: size } = [...liveMembers(ledger, boss.metadata)].filter((one) => !isEnding(one));
  hold(size <= most, 'I4', made, `${size} live members of ${most}, as was known for a while`);
}
/** The brake: a judged member is let go while at most so many are out, as an operator knows: on
 *  nodes that are down, or held there; open places of judged ends; successors never Ready. */
function checkBrake(s: Trial, claim: Seen): void {
  const { ledger, sim } = s.t;
  const key = memberKey(claim);
  const boss = clusterOfPod(ledger, claim);
  if (!boss || isLost(ledger, 120_000) || ledger.operators > 1) return;
  if (ownClaims(ledger, key).every(isUnbound)) return; // Nothing is lost with it.
  const live = liveMembers(ledger, boss.metadata);
  const isRestored = (one: string): boolean => held(s, `retired ${one}`); // In this very pass.
  const away = [...live].filter((one) => one !== key && isOut(s, one) && !isRestored(one));
  const all = [...claimsOf(s.t), ...listed(s.t, 'pods')];
  const named = all.map((o) => noteOf(o, MARK.replaces).split(' ')[0]);
  const ends = claimsOf(s.t).filter((o) => {
    const isRecent = sim.now() - Date.parse(noteOf(o, MARK.retiredAt)) < 590_000;
    const isOpen = !named.includes(identityIn(o)) && !restoring(o) && memberKey(o) !== key;
    const isOwn = isMade(o) && labelOf(o, MARK.cluster) === boss.metadata.name && !isGoing(o);
    return isOwn && isJudgement(markOf(o)) && isRecent && isOpen;
  });
  const specs = recentSpecs(ledger, boss.metadata.uid);
  const wanted = Math.min(...specs.map(({ replicas = 1 }) => replicas));
  const unfilled = Math.min(new Set(ends.map(memberKey)).size, wanted - live.size - 1);
  const out = away.length + 1 + Math.max(0, unfilled);
  const most = Math.max(...specs.map((spec) => op.maxReplacementsOf(clusterOf({ spec }).spec)));
  hold(out <= most, 'I10', claim, `${out} members are out, ${most} may be replaced`);
}
const restoring = (o: Seen): boolean => noteOf(o, MARK.restore) === 'true';
function isOut(s: Trial, key: string): boolean {
  const found = seenAt(s.t.sim, 'pods', ...key.split('/'));
  const isOwn = found && (isOurs(found) || labelOf(found, MARK.cluster) !== '');
  const pod = isOwn ? found : undefined; // Another's pod that took the name says nothing of it.
  const on = (node: string) => ['silent', 'absent'].some((fact) => isKnown(s, `${fact} ${node}`));
  if (pod && on(nodeOfPod(pod))) return true;
  const [, reason = ''] = noteOf(pod ?? ownClaims(s.t.ledger, key)[0], MARK.replaces).split(' ');
  const isYoung = s.t.sim.now() - op.birthMs(key.slice(-10)) < 590_000;
  const wasUp = s.witness.facts.has(`up ${pod?.metadata.uid}`);
  const isEmpty = !pod && isYoung && isKnown(s, `idle ${key}`);
  if (isJudgement(reason) && (isEmpty || (pod && !wasUp))) return true;
  const pins = pinsOf(s, key);
  return (!pod || isKnown(s, `idle ${key}`)) && pins.length > 0 && pins.every(on);
}
/** No member is given up for a revision that the API server refuses. */
function checkTrial(s: Trial, o: Seen): void {
  const { ledger } = s.t;
  const specs = recentSpecs(ledger, `${clusterOfPod(ledger, o)?.metadata.uid}`, ledger.passMs);
  const isMended = s.t.sim.state.mutate !== undefined; // By admission, which pins images.
  const isRefused = specs.every((spec) => JSON.stringify(spec.template).includes('"image":""'));
  hold(!isRefused || isMended || specs.length === 0, 'I10', o, 'it is updated to what is refused');
}
/** After two early ends that speak against the template nothing new is made for 10 s. */
function checkPatience(s: Trial, made: Seen): void {
  const { sim, ledger } = s.t;
  const { troubleAt, ends, born } = s.witness;
  const at = ends.get(labelOf(made, MARK.cluster)) ?? [];
  const last = at.at(-1) ?? -Infinity;
  const isOld = ledger.sim.now() - op.birthMs(identityIn(made)) > 2000; // It comes back.
  const calm = sim.uptime() - Math.max(troubleAt, ledger.restoredAt) > 60_000;
  const times = new Set(at.map((ms) => Math.round(ms / 1500))).size;
  if (times < 2 || isOld || !calm || ledger.operators > 1 || born.size === 0) return;
  const ms = sim.uptime() - last;
  hold(ms > 8500 || ms < 20, 'F21', made, `it is made ${ms} ms after an early end`);
}
/** Requests: none too often, and no process writes again after another has begun. */
function watchRequests(s: Trial): void {
  const { sim } = s.t;
  const { rate, over } = s.witness;
  for (; s.witness.requests < sim.requests.length; s.witness.requests++) {
    const sent = sim.requests[s.witness.requests] as Sent;
    if (s.witness.requests > REQUESTS_MAX) throw new Error('F7 broken: far too many requests');
    if (!isOperator(sent.who)) continue;
    const isFine = sent.status >= 200 && sent.status < 400;
    if (!isFine && !(sent.status === 404 && isRead(sent))) {
      s.witness.troubleAt = sim.uptime();
      if (isRead(sent)) s.witness.blindAt = sim.uptime();
    }
    if (isRead(sent) || isOfLease(sent)) continue;
    rate.push(sent.at);
    while ((rate[0] ?? Infinity) < sent.at - 10_000) rate.shift();
    // Two without a Lease, one of them blind, undo what the other does.
    if (rate.length > s.t.ledger.operators * (RATE_MAX + 60 * s.witness.most))
      throw new Error(`F7 broken: ${rate.length} writes within 10 s`);
    // What is on the wire when its sender loses the Lease, and so ends, may land after that.
    if (s.script.operators === 1 || sent.isLate || sent.who === s.witness.writer) continue;
    if (over.has(sent.who)) throw new Error(`F15 broken: ${sent.who} writes after another leader`);
    // A restored etcd has forgotten who took the Lease: two lead, until the first would renew it.
    const isForgotten = sim.uptime() - s.t.ledger.restoredAt < op.BOUNDS.leaseMs;
    if (s.witness.writer && !isForgotten) over.add(s.witness.writer);
    s.witness.writer = sent.who;
  }
}
const RATE_MAX = 400;
const REQUESTS_MAX = 60_000;

/** Nodes are given up sooner than by default, so that more happens in less time. */
function settingOf({ nodes, provisionMs }: Script): Setting {
  const actors = { nodeGraceMs: 10_000, heartbeatMs: 4000, quarantineMs: 10_000 };
  return { nodes, actors: { ...actors, startMs: 300, stopMs: 300, provisionMs } };
}
/** A script in play. */
type Trial = ReturnType<typeof newTrial>;
function newTrial(script: Script, code: Code) {
  const t = newScene(settingOf(script), script.seed, code);
  const names = ['operator', 'operator-b'].slice(0, script.operators);
  const s = {
    ...{ t, script, witness: newWitness() },
    told: [] as Line[], // Moves.
    changes: [] as Line[], // What was stored of pods and claims, but routine.
    ends: new Set<() => void>(), // What ends each fault that is still in force.
    faults: new Map(names.map((who): [string, Faults] => [who, {}])), // By operator.
    up: new Set<string>(), // Operators that run.
    turns: 0, // Processes started so far.
  };
  t.sim.afterStep = () => {
    checkStep(t.ledger);
    watchRequests(s);
  };
  t.ledger.also = (plural, change, who) => {
    const { type, object } = change;
    see[plural as keyof typeof see]?.(s, change, who);
    s.witness.hash.update(`${t.sim.uptime()} ${who} ${type} ${JSON.stringify(object)}\n`);
    const text = changeText(change, who);
    if (text) s.changes.push({ at: t.sim.uptime(), text });
  };
  return s;
}

type Outcome = Awaited<ReturnType<typeof playScript>>;
/** `law` is '' when nothing broke. */
async function playScript(script: Script, code: Code = op) {
  const s = newTrial(script, code);
  const { sim } = s.t;
  const outcome = (law: string, why: string) => {
    for (const { at, who, method, path, status } of sim.requests)
      s.witness.hash.update(`${at} ${who} ${method} ${path} ${status}\n`);
    return { law, why, hash: s.witness.hash.digest('hex').slice(0, 16), trial: s };
  };
  try {
    for (const who of s.faults.keys()) goesUp(s, who);
    await sim.run(1000);
    for (const cluster of script.clusters) apply(s.t, cluster);
    for (const move of script.moves) {
      await sim.run(Math.max(0, move.at + 1000 - sim.uptime()));
      const told = MOVES[move.what]?.(s, move);
      tell(s, told ?? `${move.what}: nothing to do`);
    }
    await sim.run(script.restMs);
    await calmDown(s);
    return outcome('', '');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return outcome(/^[IF]\d+/.exec(why)?.[0] ?? why.replace(/\d+/g, '#').slice(0, 24), why);
  } finally {
    for (const who of ['actors', ...s.faults.keys()]) sim.kill(who);
    for (const stop of s.t.stops) stop.abort(); // Else Node holds what listens, for ever.
  }
}

/** Every fault ends, and whatever could not work is mended. */
function mendAll(s: Trial): void {
  const { t } = s;
  for (const end of s.ends) end(); // Also those that begin here.
  for (const faults of s.faults.values()) for (const key in faults) delete faults[key as 'cut'];
  for (const who of s.faults.keys()) goesUp(s, who);
  t.sim.api('POST', crdsAt, crdOnly()[0]);
  t.sim.api('DELETE', `${space}/resourcequotas/q`);
  for (const node of nodeNames(s)) {
    t.actors.revive(node);
    t.sim.api('PATCH', `/api/v1/nodes/${node}`, { spec: { taints: [], unschedulable: null } });
  }
  for (const pod of listed(t, 'pods')) {
    const boss = clusterNow(t, labelOf(pod, MARK.cluster)) as Seen | undefined;
    if (isGoing(boss)) t.sim.api('DELETE', pathAt(pod)); // It may have lost its owner.
  }
  for (const now of listed(t, 'statefulclusters')) {
    const { containers = [] } = (now.spec.template?.['spec'] ?? {}) as { containers?: Rec[] };
    const broken = containers.some((c) => !`${c['image']}`.startsWith('img:'));
    const rollingUpdate = { paused: false, podUpdatePolicy: 'InPlaceIfPossible', partition: 0 };
    const policy = { suspend: false, updateStrategy: { type: 'RollingUpdate', rollingUpdate } };
    const spec = { ...policy, ...(broken && containersWith(now, { image: 'img:9' })) };
    const body = { metadata: { annotations: { [MARK.paused]: null } }, spec };
    t.sim.api('PATCH', `${clusterAt('default')}/${now.metadata.name}`, body);
  }
  tell(s, 'every fault has ended');
}
/** Claims of living members are the cluster's if whenDeleted says so, and only then. */
function misowned(s: Trial, name: string): string {
  const { spec, metadata } = clusterNow(s.t, name);
  const { whenDeleted } = (spec as Raw)['persistentVolumeClaimRetentionPolicy'] ?? {};
  const living = new Set(livePods(s.t, name).map(identityIn));
  const own = claimsOfCluster(s, name).filter((o) => !isGoing(o));
  const wrong = own
    .filter((o) => living.has(identityIn(o)) && !isForeign(o) && isMade(o))
    .find((o) => (bossOf(o)?.['uid'] === metadata.uid) !== (whenDeleted === 'Delete'));
  return wrong ? `the owner of ${wrong.metadata.name} is not as whenDeleted says` : '';
}
/** Claims of two or more are sealed, and what was never bound does not outlive its identity. */
function unsealed(s: Trial, name: string): string {
  const mounted = new Set(listed(s.t, 'pods').flatMap(claimsIn)); // Also by a released pod.
  const own = claimsOfCluster(s, name).filter((o) => isMade(o) && !isGoing(o));
  const wanted = new Set(own.filter(restoring).map(memberKey));
  const isLeft = (o: Seen): boolean => !wanted.has(memberKey(o)) && !mounted.has(o.metadata.name);
  const left = own.find((o) => markOf(o) && isUnbound(o) && isLeft(o));
  if (left) return `${left.metadata.name} was never bound, and is left`;
  const open = livePods(s.t, name).filter((pod) => claimsIn(pod).length > 1);
  const bare = own.find(
    (o) => !noteOf(o, MARK.claims) && open.some((pod) => claimsIn(pod).includes(o.metadata.name)),
  );
  return bare ? `${bare.metadata.name} is not sealed` : '';
}
/** What is still to happen, of the first cluster that is not as its spec says. */
function pendingIn(s: Trial): string {
  for (const name of clusterNames(s)) {
    if (!clusterNow(s.t, name)) {
      comesBack(s, name);
      s.t.sim.afterStep?.(); // Else it were taken for the write of the next request.
    }
    const ready = conditionOf(s.t, 'Ready', name)?.message ?? '';
    const isBlind = ready.includes('volumes cannot be read') && 'it has yet to read volumes again';
    const why = pendingOf(s.t, name) || misowned(s, name) || unsealed(s, name) || isBlind;
    if (why) return `${name}: ${why}`;
  }
  return '';
}
/** Others' objects that stand where a member would: a condition names them, and a human acts. */
function removeSquatters(s: Trial): void {
  for (const { metadata } of listed(s.t, 'statefulclusters')) {
    const { name: cluster } = metadata;
    const words = ['Stalled', 'Ready'].map((type) => conditionOf(s.t, type, cluster)?.message);
    const moved = livePods(s.t, cluster).filter((o) => labelOf(o, 'app') !== cluster);
    for (const pod of words[0]?.startsWith('admission changes') ? moved : [])
      patchObject(s, pod, { labels: { app: cluster } });
    const others = [...listed(s.t, 'pods'), ...claimsOf(s.t)].filter((o) => !bossOf(o));
    for (const o of others.filter((one) => one.kind === 'Pod' || !isMade(one))) {
      const { name } = o.metadata;
      const isNamed =
        (words[0]?.includes(`${name} `) && words[0].includes('stands in the way')) ||
        (identityIn(o) && words[1]?.includes(`is waited for: ${identityIn(o)}`));
      if (isNamed) tell(s, removeObject(s, pathAt(o), {}, `${name} is taken away`));
    }
  }
}
/** I6, after all faults; what only a human can decide is decided. */
async function calmDown(s: Trial): Promise<void> {
  const { sim } = s.t;
  mendAll(s);
  await sim.run(70_000); // A stream that hung comes back after 30 s and a backoff of 30 s.
  await sim.run(() => pendingIn(s) === '', 200_000);
  removeSquatters(s);
  for (const { metadata } of listed(s.t, 'statefulclusters'))
    if (conditionOf(s.t, 'ReplacementWithheld', metadata.name)?.status === 'True') {
      tell(s, `all of ${metadata.name} may be replaced`);
      const spec = { liveness: { maxReplacements: '100%' } };
      sim.api('PATCH', `${clusterAt('default')}/${metadata.name}`, { spec });
    }
  const isCalm = (): boolean => pendingIn(s) === '';
  // A condition names one of them, and once that is gone the next.
  for (let i = 0; i < 3 && !(await sim.run(isCalm, 300_000)); i++) removeSquatters(s);
  if (!isCalm()) throw new Error(`I6 broken: status does not become spec: ${pendingIn(s)}`);
  // A node that fell silent late gives its dead pods up late, and their claims go after them. Of
  // many that a user asked to replace one goes at a time, and all are Available in between.
  const isLeaving = (o: Seen): boolean => isGoing(o) || noteOf(o, MARK.replace) === 'true';
  await sim.run(() => !listed(s.t, 'pods').some(isLeaving), 300_000);
  await sim.run(15_000);
  const mark = sim.requests.length;
  await sim.run(75_000);
  if (pendingIn(s) !== '') throw new Error(`I6 broken: it does not stay so: ${pendingIn(s)}`);
  const sent = requestsSince(s.t, mark);
  const drifts = listed(s.t, 'statefulclusters').some(
    ({ metadata: { name } }) => conditionOf(s.t, 'ClaimTemplatesDrifted', name)?.status === 'True',
  );
  const retries = ['PATCH persistentvolumeclaims', 'POST events', 'PATCH events'];
  if (drifts) for (const retry of retries) delete sent[retry]; // A refused growth is tried again.
  if (sumOf(sent) > 0) throw new Error(`I6 broken: at rest, ${JSON.stringify(sent)}`);
}

// ─── Shorter scripts, and what is told of them ──────────────────────────────────────────────────

/** Leaves out moves, half of them first and single ones at the end, while the same law breaks. */
async function shorten(first: Outcome, code: Code, forMs: number): Promise<Outcome> {
  const until = performance.now() + forMs;
  let best = first;
  for (let size = Math.ceil(first.trial.script.moves.length / 2); size >= 1; size = size >> 1)
    for (let from = 0; from < best.trial.script.moves.length && performance.now() < until;) {
      const { script } = best.trial;
      const moves = script.moves.filter((_, i) => i < from || i >= from + size);
      const outcome = await playScript({ ...script, moves }, code);
      if (outcome.law === first.law) best = outcome;
      else from += size;
    }
  return best;
}
/** What the clusters say, and what exists of each member. */
function sketch({ t }: Trial): readonly string[] {
  const clusters = listed(t, 'statefulclusters').map(({ metadata: { name }, spec, status }) => {
    const { replicas, readyReplicas } = status ?? {};
    const counts = `${spec.replicas} wanted, ${replicas} there, ${readyReplicas} up`;
    return `${name}: ${counts} — ${conditionOf(t, 'Ready', name)?.message}`;
  });
  const texts = [...listed(t, 'pods'), ...listed(t, 'persistentvolumeclaims')].map((o) => {
    const mark = markOf(o) && `retired ${markOf(o)} ${noteOf(o, MARK.retiredPolicy)}`;
    const whose = o.kind === 'Pod' && !isOurs(o) && 'not ours';
    const is = [o.status?.phase, isUp(o) && 'Ready', isGoing(o) && 'going', whose, mark];
    const words = [o.kind, o.metadata.name, ...is, nodeOfPod(o) && `on ${nodeOfPod(o)}`];
    return `  ${memberKey(o)}: ${words.filter(Boolean).join(' ')}`;
  });
  return [...clusters, ...texts.sort()];
}
/** The command that plays it again, its history, and the members at its end. */
function failureText(first: Outcome, best: Outcome, flags: string): string {
  const { trial, why } = best;
  const { seed, steps, moves, operators } = trial.script;
  const all = first.trial.script.moves;
  const only = moves.map((move) => all.indexOf(move)).join(',') || 'none';
  return [
    `seed ${seed}: ${why}`,
    scriptText(trial.script).split('\n')[0],
    `again: npm run sim -- --seed ${seed} --steps ${steps} --only ${only}${flags}`,
    `history (${moves.length} of ${all.length} moves, ${operators} operators):`,
    ...historyOf(trial),
    'members:',
    ...sketch(trial).map((line) => `  ${line}`),
  ].join('\n');
}
/** Moves, what was stored, and what operators were refused, in order; the middle is left out. */
function historyOf({ t, told, changes }: Trial): readonly string[] {
  const bad = t.sim.requests.filter((r) => isOperator(r.who) && !(r.status < 400 && r.status));
  const failures = bad.map(({ at, who, method, path, status }) => {
    const place = path.replaceAll(/^.*namespaces\/default|[?&](label|field|allow|timeout).*/g, '');
    return { at, text: `  ${who} ${method} ${place}: ${status || 'no answer'}` };
  });
  const rest = [...changes, ...failures].sort((a, b) => a.at - b.at).slice(-HISTORY_MAX);
  const all = [...told, ...rest].sort((a, b) => a.at - b.at);
  return all.map(({ at, text }) => `  ${(at / 1000).toFixed(3)} s ${text}`);
}
const HISTORY_MAX = Number(process.env['SIM_HISTORY'] ?? 60);
/** A stored change as a line; undefined for what the actors do all the time. */
function changeText({ type, object, previous }: SeenChange, who: string): string | undefined {
  const { kind, metadata } = object;
  const verb = previous && !isGoing(previous) && isGoing(object) ? 'going' : type.toLowerCase();
  const mark = noteOf(object, MARK.retired) && `retired ${noteOf(object, MARK.retired)}`;
  if (verb === 'modified' && !isOperator(who) && who !== 'test') return undefined;
  if (kind === 'Event' || kind === 'Node') return undefined;
  const replaces = type === 'ADDED' && noteOf(object, MARK.replaces);
  const words = [who, verb, metadata.name, mark, replaces && `for ${replaces}`];
  return `  ${words.filter(Boolean).join(' ')}`;
}

// ─── npm run sim ────────────────────────────────────────────────────────────────────────────────
const SIM_USAGE = `npm run sim -- [flags]
  --seeds N      how many seeds (default 100, 1 with --seed, 5000 with --mutants)
  --seed S       the first one (default 1)
  --steps K      moves of each seed (default 12)
  --only I,J     only these moves of it
  --moves A,B    half of the moves are of these
  --workers N    processes (default: one for each CPU)
  --mutants      without each protection in turn: does a seed notice? (--match TEXT: of these)`;
const TEXT = { type: 'string' } as const;
const SIM_FLAGS = {
  ...{ seeds: TEXT, seed: TEXT, steps: TEXT, only: TEXT, moves: TEXT, workers: TEXT },
  ...{ operator: TEXT, match: TEXT },
  mutants: { type: 'boolean' },
} as const;
type Wanted = ReturnType<typeof wantedOf>;
function wantedOf(args: readonly string[]) {
  const { values } = parseArgs({ args: [...args], options: SIM_FLAGS });
  const number = (name: 'seeds' | 'seed' | 'steps' | 'workers', usual: number): number => {
    const n = Number(values[name] ?? usual);
    if (!Number.isInteger(n) || n < 1) throw new Error(`--${name} must be a number above 0`);
    return n;
  };
  const only = values.only === 'none' ? [] : values.only?.split(',').map(Number);
  return {
    seeds: number('seeds', values.mutants ? 5000 : values.seed ? 1 : 100),
    seed: number('seed', 1),
    steps: number('steps', 12),
    workers: number('workers', availableParallelism()),
    ...(only && { only }),
    moves: values.moves?.split(',').filter(Boolean) ?? [],
    operator: values.operator ?? '', // The file under test.
    ...{ mutants: values.mutants ?? false, match: values.match ?? '' },
  };
}
function scriptOf({ steps, only, moves }: Wanted, seed: number): Script {
  const script = drawScript(seed, steps, moves);
  return only ? { ...script, moves: script.moves.filter((_, i) => only.includes(i)) } : script;
}
const movesFlag = ({ moves }: Wanted) => (moves.length > 0 ? ` --moves ${moves.join()}` : '');
/** One seed, and if it breaks something, the shortest script that does. */
async function trySeed(wanted: Wanted, seed: number, code: Code, forMs: number) {
  const first = await playScript(scriptOf(wanted, seed), code);
  const { hash, law } = first;
  const text = law && failureText(first, await shorten(first, code, forMs), movesFlag(wanted));
  return { seed, hash, law, text };
}
type Tried = Awaited<ReturnType<typeof trySeed>>;

/** In this process: the seeds from `seed` on, every `step`-th. */
async function* trySeeds(wanted: Wanted, from: number, step: number): AsyncGenerator<Tried> {
  const code: Code = wanted.operator
    ? ((await import(pathToFileURL(wanted.operator).href)) as typeof op)
    : op;
  const forMs = process.env['SIM_QUICK'] ? 0 : 20_000; // For the search of a shorter script.
  for (let i = from; i < wanted.seeds; i += step)
    yield trySeed(wanted, wanted.seed + i, code, forMs);
}
/** What a process beside this one tries, as it comes; it ends with its reader, or when silent. */
async function* triedBeside(args: readonly string[], env: Strings, silentMs = 2 ** 31 - 1) {
  const child = spawn(process.execPath, [import.meta.filename, 'sim', ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const isOver = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), silentMs);
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      timer.refresh();
      yield JSON.parse(line) as Tried;
    }
    const [code, signal] = await isOver;
    if (code !== 0) throw new Error(`a worker ended with ${code ?? signal}`);
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
    await isOver;
  }
}
/** In processes beside this one, each with its share; outcomes as they come. */
async function shareSeeds(args: readonly string[], workers: number, on: (one: Tried) => void) {
  const share = async (index: number): Promise<void> => {
    for await (const one of triedBeside(args, { SIM_SHARE: `${index}/${workers}` })) on(one);
  };
  await Promise.all(Array.from({ length: workers }, (_, index) => share(index)));
}
/** The command line of `sim`; returns the exit code. */
async function simulate(args: readonly string[]): Promise<number> {
  let wanted: Wanted;
  try {
    wanted = wantedOf(args);
  } catch (error) {
    console.error(`sim: ${wordsOf(error)}\n${SIM_USAGE}`);
    return 2;
  }
  return wanted.mutants ? tryMutants(wanted) : playSeeds(wanted, args);
}
/** Plays the seeds, tells of each that breaks something, and how far it is. */
async function playSeeds(wanted: Wanted, args: readonly string[]): Promise<number> {
  const [index, count] = (process.env['SIM_SHARE'] ?? '').split('/').map(Number);
  if (count !== undefined) {
    for await (const one of trySeeds(wanted, index ?? 0, count)) console.log(JSON.stringify(one));
    return 0;
  }
  const startedAt = performance.now();
  let toldAt = startedAt;
  let done = 0;
  const broken: Tried[] = [];
  if (wanted.seeds === 1) console.log(scriptText(scriptOf(wanted, wanted.seed)));
  else console.log(`${wanted.seeds} seeds from ${wanted.seed}, ${wanted.steps} moves each`);
  const note = (one: Tried): void => {
    done++;
    if (one.law) (broken.push(one), console.log(`\n${one.text}\n`));
    const now = performance.now();
    if (now - toldAt < 5000) return;
    toldAt = now;
    const rate = (done / (now - startedAt)) * 1000;
    console.log(`${done} of ${wanted.seeds} seeds, ${rate.toFixed(1)}/s, ${broken.length} broken`);
  };
  if (wanted.seeds === 1) for await (const one of trySeeds(wanted, 0, 1)) note(one);
  else await shareSeeds(args, Math.min(wanted.workers, wanted.seeds), note);
  const took = (performance.now() - startedAt) / 1000;
  const laws = broken.map(({ seed, law }) => `${seed} ${law}`).join(', ');
  console.log(`${done} seeds in ${took.toFixed(1)} s: ${laws ? `broken: ${laws}` : 'all hold'}`);
  return broken.length > 0 ? 1 : 0;
}

// ─── npm run sim -- --mutants ───────────────────────────────────────────────────────────────────
// Each protection is taken out of operator.ts's text in turn, and the seeds must notice.

type Mutant = ReturnType<typeof mutantsIn>[number];
/** What is protected and the moves that lead there; then code that is there once, in which `[-…-]`
 *  protects, and {+…+} stands in its place without it, as in `git diff --word-diff`. */
const mutantsIn = (table: string) =>
  table.split(/^# /m).flatMap((one) => {
    const [, what = '', moves = '', lines = ''] =
      /^(.*?)(?: · (.*?))?(?: \| |\n)(.*)/s.exec(one.trimEnd()) ?? [];
    const code = lines.replaceAll('-]\n{+', '-]{+');
    const text = code.replaceAll(/\{\+.*?\+\}/gs, '').replaceAll(/\[-(.*?)-\]/gs, '$1');
    const without = code.replaceAll(/\[-.*?-\]/gs, '').replaceAll(/\{\+(.*?)\+\}/gs, '$1');
    return text ? [{ what, text, without, moves }] : [];
  });
const MUTANTS = mutantsIn(String.raw`
# a pod is deleted by its UID | a.kind === CLAIMS ? { uid, resourceVersion } : {[- uid -]};
# a claim is deleted in its version
const preconditions = a.kind === CLAIMS ? { uid[-, resourceVersion-] }
# a patch names UID and version
...(change['metadata'] as Json), uid: meta.uid[-, resourceVersion-] }
# read your writes | return [-expected.size === 0-]{+true+};
# a cache that lags is listed anew
'the cache lags own writes', { cluster: key, path: feed.path });[-
      relist(feed);-]
# a list is a quorum list | const resourceVersion = fresh ? [-''-]{+0+} : feed.version;
# a broken stream is listed anew
feed.mustList = [-true-]{+feed.listedAt < 0+};
  feed.world.log(
# older versions are refused · replay,lag,deletePod,scale
if (version <= [-feed.version-]{+0+}) return; // Replayed
# another version is told even if it is no news
[-feed.on(before, object, isNews || unversioned(before) !== unversioned(object)-]
{+if (isNews || unversioned(before) !== unversioned(object)) feed.on(before, object, true+});
# the brake | out > [-limit-]{+1e9+} && !isFree ?
# the brake counts who is away · cutOff,kill,fallSilent,breakTemplate,deleteClaim,unready
judged.includes(m) || [-isAway(m) || -]isHeir(m)
# the brake counts successors · cutOff,kill,removeNode,breakTemplate,fallSilent,outOfService
judged.includes(m) || isAway(m)[- || isHeir(m)-]
# the brake counts places · removeNode,fallSilent,quota,refuse,kill
return [-out + Math.min(Math.max(0, d.spec.replicas - live.length), awaited)-]
{+awaited < 0 ? 0 : out+};
# a judgement takes its time | Math.max(0, [-seconds * 1000-]{+0 * seconds+} - lastedMs(
# a changed transition is new evidence · silentUnheard
pod?.meta.uid ?? '', sinceMs ?[-?-]{+ 1 :+} '']
# a judgement is read live · silentUnheard,stale
if ([-isGuarded(d, m, reason-]{+(isJudgement(reason) || isGuarded(d, m, reason)+}) && isSafe)
# the node of a deleted pod, or one out of service, is read live · unheard,outOfService,stale,lag
if ([-isGuarded(d, m, reason-]{+(!isJudgement(reason) || isGuarded(d, m, reason)+}) && isSafe)
# nobody is given up before a node is open · night,removeNode,drain,crash
if (words.includes('open')[- || !hasOpenNode(s)-]) return
# a trouble of the node waits · taint,failPod,evict,taint,replacementPolicy
if ([-word === 'pressed' || -]
# WhenVolumesLost: a deleted pod returns
if ([-d.spec.replacementPolicy === 'Always' && -]isDeletedByHand(d, m))
# an eviction is no deletion by hand | return pod.disruption [-=== '-]{+!== '?+}' || d.s.desk
# a deletion on a closed node is none by hand · drain,deletePod,taint,cutOff,kill
[-  if (nodeWord(d.s, pod.node) !== 'open') return false;-]
# own deletions are none by hand
pod?.meta.deletedMs === undefined[- || MARK.returns in pod.meta.annotations-]) return
# while suspended nobody is judged · suspend,cutOff,removeNode,kill,deletePod
  [-if (d.spec.suspend) return undefined; -]// Nobody
# a name that is taken ends only who has no data
m.isBlocked.startsWith('foreign')[- && m.claims.every(isNeverBound)-]
# the cluster is read live before ends · lag,stale,replacementPolicy,template,deletePod,strategy
const reads = [isRead(d, m.identity, ...refs)[-, readsCluster(d)-]];
# the cluster is read live before scale-in · lag,stale,dip,scale,surge
  [-if (!readsCluster(d)) return;
  -]const most = Math.min(surplus
# the cluster is read live before adoption · lag,stale,deleteCluster,stripOwner,takeOut
if (!(isWhole || isNew)[- || !readsCluster(d)-]) continue;
# marks before ends | ['revise', '[-mark', 'end-]{+end', 'mark+}', 'free', 'make', 'keep'] as const
# half-made marks are finished with the same Reason
if (m.retired) planEnd(d, m, [-m.retired.reason-]{+'PodDeleted'+});
# an identity that is ending gets no pod · stumble,crash,scale,refuse,deletePod,rights
isOver ? 'over' : [-first && isMarked(first) ? 'ending' : -]'live'
# claims that the cache lacks are read live · stale,scale,preempt,stale,evict,night
const isOver = [-isRead(d, identity, ...absent.map((name) => refOf(CLAIMS, name))) && -]isEnded;
# only what is marked Delete is deleted
annotations[MARK.retiredPolicy] [-=== 'Delete-]{+!== '+}' || isNeverBound(c)
# what was never bound is deleted | === 'Delete'[- || isNeverBound(c)-]);
# claims go after their pod
if (isMounted [-|| (pod && isControlledBy(pod.meta, d.s.cluster.meta.uid))-]
{+&& pod === undefined+}) return;
# claims of a former cluster's pod stay · deleteCluster,scale,kill,crash
if ([-isMounted || -](pod && isControlledBy
# what a former cluster kept is kept
const isKept = moment === 'Retain' [-|| isOlder -]|| m.claims
# AlreadyExists is success only for what is ours
if (isTaken(error)[- && -]{+) return metaOf(body);
    if (+}kind !== REVISIONS)
# another controller's claims are not ours · intrude,scale,deletePod,retention
if (!isNamed[- || isOthers(claim, cluster)-]) return false;
# claims that others made are not ours
return MARK.claims [-in meta.annotations-]{+!== ''+} || (isGiven
# another controller's pods are not adopted
![-hasController(pod.meta) && !-]isTerminating(pod) && isSelected
# no birth in the room of one that could not be ended
!held.has(a.identity)[- && !(a.do === 'Make' && held.has(a.after ?? ''))-];
# places are counted | const free = Math.max(0, wanted {++ 1 +}- live.length - formerOf(d));
# labels that admission moved are no release · admission,crash,admission,scale
return [-!isMoved && words === ''-]{+!words.startsWith(NO_ANSWER)+};
# early ends hold births · failAll,liveness | if (times [-=== 0 || waitMs <-]{+>+}= 0) return '';
# only the surplus is scaled in | const most = Math.min(surplus{+ + 1+}, turnsNow
# who is not Ready is scaled in first
      pod?.ready ? [-1 : 0-]{+0 : 1+},
# an index is not given twice | m.life !== 'over' [-|| (m.pod && !isDead(m)-]{+&& !isDead(m+}));
# who returns keeps an index that is its own · scale,restore,deletePod,ask
own !== undefined && d.indices.[-get(own) === m-]{+has(own)+}
# a claim that a seal names is missed · deleteClaim,suspend,failPod,evict
const isMeant = own !== undefined[- || sealOf(m.claims[0]).includes(name)-];
# two claims are sealed
[-act(d, 'seal', 'Sealed', identity, claim, annotated({ [MARK.claims]: names.join(' ') }))-]
{+void claim+};
# a pod that comes back is marked first
  if (pod.meta.annotations[MARK.returns] [-!== why-]{+=== ''+})
# who could not come back is not recreated · template,strategy,cutOff,drain,taint,kill
else if ([-canComeBack(d, m)-]{+m.pod !== undefined+}) leaveAndReturn
# what was read long ago is acted upon no more · freeze,cutOff,deletePod,kill
if (![-isOld(pass) && !-]waiting
# nobody is restored who lost a claim · restore,deleteClaim,scale,ask
!m.claims.some(isTerminating)[- && !isClaimGone(d, m)-];
# requests keep to the budget | ...up[-.slice(0, spareOf(d, 1))-]];
# updates keep to the budget | youngestFirst.filter(isReady)[-.slice(0, spareOf(d))-];
# those who stay are read live · lag,stale,template,strategy,ask,unready
const isAllowed = [[-isReliedOn(d, chosen), -]passesTrial
# a new revision is tried before it costs a member · breakTemplate,template,strategy
[-passesTrial(d, chosen), -]readsCluster(d)];
# who is updated in place counts as gone
[-  if (inPlaceOf(pod) && !isApplied(pod)) return 'Updating';-]
# a paused cluster is left alone · pause,scale,deletePod,template
isTerminating(s.cluster) || [-isPaused || -]stalled
# a cluster on its way out is left alone | const isIdle = [-isTerminating(s.cluster) || -]isPaused
# claims are owned as whenDeleted says
const wantsOwner = d.spec.[-persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete'-]
{+replicas < 0+};
# whoever lost the Lease writes nothing · freeze,overlap,scale,partition,surge
if (request.method === 'GET') return e.world.send(request);
    if ([-!leads(e)-]{+e === undefined+})
# a status that does not land holds its cluster · beat,wipeStatus,lag,scale,deletePod,stumble
if (old && {+kind !== CLUSTERS && +}(code === 409 || isOther))
      expect(pass
`);
function mutantText({ what, text, without }: Mutant, source: string): string {
  const times = source.split(text).length - 1;
  if (times !== 1) throw new Error(`mutant "${what}": its text is there ${times} times`);
  return source.replace(text, () => without);
}
/** Plays seeds with it until one breaks something, in a process of its own; no law: it survived. */
async function tryMutant(file: string, usual: string, wanted: Wanted) {
  const startedAt = performance.now();
  const { seeds, seed, steps } = wanted;
  const flags = { operator: file, seeds, seed, steps, moves: wanted.moves.join() || usual };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, `${value}`]);
  let [done, law] = [0, ''];
  try {
    for await (const one of triedBeside(args, { SIM_SHARE: '0/1', SIM_QUICK: '1' }, 60_000)) {
      done++;
      law = one.law;
      if (law) break;
    }
  } catch {
    law = 'it spins or dies';
  }
  return { law, seeds: done, ms: performance.now() - startedAt };
}
/** The table: each mutant, what caught it, and how many seeds that took. */
async function tryMutants(wanted: Wanted): Promise<number> {
  const chosen = MUTANTS.filter(({ what }) => what.includes(wanted.match));
  const folder = fs.mkdtempSync(join(tmpdir(), 'statefulcluster-mutants-'));
  fs.writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  fs.symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules')); // For their imports.
  const width = Math.max(...chosen.map(({ what }) => what.length));
  const alive: string[] = [];
  try {
    console.log(`${'without'.padEnd(width)}  caught by           seeds  seconds`);
    const left = chosen.entries(); // One iterator: each worker takes the next of it.
    const work = async (): Promise<void> => {
      for (const [i, mutant] of left) {
        const { what } = mutant;
        const file = join(folder, `${i}.ts`);
        fs.writeFileSync(file, mutantText(mutant, fileText('operator.ts')));
        const { law, seeds, ms } = await tryMutant(file, mutant.moves, wanted);
        if (!law) alive.push(what);
        const cells = [what.padEnd(width), (law || 'SURVIVED').padEnd(18)];
        console.log(`${cells.join('  ')}  ${`${seeds}`.padStart(5)}  ${(ms / 1000).toFixed(1)}`);
      }
    };
    await Promise.all(Array.from({ length: wanted.workers }, work));
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
  console.log(`${chosen.length - alive.length} of ${chosen.length} caught`);
  return alive.length > 0 ? 1 : 0;
}

// ─── What npm test plays of it ──────────────────────────────────────────────────────────────────
const simulation = suite('simulation');
const SEEDS = 300;
simulation(`simulation: ${SEEDS} seeds → every law holds`, async () => {
  const texts: string[] = [];
  const args = ['--seeds', `${SEEDS}`];
  await shareSeeds(args, availableParallelism(), ({ text }) => void texts.push(text));
  assert.is(texts.length, SEEDS);
  assert.is(texts.filter(Boolean).join('\n\n'), '');
});
simulation('simulation: a seed twice, and in another process → the same bytes', async () => {
  const args = ['--seeds', '6', '--seed', '40'];
  const here = () => trySeeds(wantedOf(args), 0, 1);
  const all: string[][] = [];
  for (const tries of [here(), here(), triedBeside(args, { SIM_SHARE: '0/1' })]) {
    const hashes: string[] = [];
    for await (const { hash } of tries) hashes.push(hash);
    all.push(hashes);
  }
  assert.is(new Set(all[0]).size, 6);
  assert.equal(all, [all[0], all[0], all[0]]);
});
simulation('simulation: each mutant → its text is there once, and another without it', () => {
  const source = fileText('operator.ts');
  for (const mutant of MUTANTS) assert.is.not(mutantText(mutant, source), source);
});
simulation('simulation: a law that is broken → told with the shortest script', async () => {
  const code: Code = {
    ...op,
    runOperator: (world, options, signal) => {
      const send: World['send'] = (request) => {
        const wrong = request.path.replace('/pods/', '/pods/x');
        return world.send(request.method === 'DELETE' ? { ...request, path: wrong } : request);
      };
      return op.runOperator({ ...world, send }, options, signal);
    },
  };
  let [seed, law, text] = [0, '', '']; // Not every seed makes it delete a pod.
  while (!law && seed < 20) ({ law, text } = await trySeed(wantedOf([]), ++seed, code, 2000));
  assert.match(text, new RegExp(`again: .*--seed ${seed} --steps 12 .*\n.*\\(\\d of 12 moves`));
});
simulation('simulation: wrong flags → one line, and how it is used', () => {
  for (const flag of ['--seeds=0', '--seed=x', '--frob', '--workers=-1'])
    assert.throws(() => wantedOf([flag]), '', flag);
});
if (TESTING) simulation.run();

// ═══ REAL TIME · effects ════════════════════════════════════════════════════════════════════════
// The operator as its own process with its own HTTP client: against the embedded server behind a
// proxy that misbehaves, and against a real kube-apiserver. Nobody sleeps or polls: whatever may
// have changed something rings a bell, and who waits looks again; each wait has a limit.

const OPERATOR = `${import.meta.dirname}/operator.ts`;
const MERGE_PATCH = 'application/merge-patch+json';

type Bell = ReturnType<typeof newBell>;
function newBell() {
  const lookers = new Set<() => void>();
  const look = (): void => lookers.forEach((one) => one());
  let due: NodeJS.Immediate | undefined;
  const ring = (): void => void (due ??= setImmediate(() => ((due = undefined), look())));
  /** Resolves once `pending` has nothing more to say. */
  const until = async (what: string, pending: () => string, limitMs = 60_000): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const late = (): Error => new Error(`not in ${limitMs / 1000} s: ${what}: ${pending()}`);
    const timer = setTimeout(() => reject(late()), limitMs);
    const one = (): void => void (pending() === '' && resolve());
    lookers.add(one);
    one();
    await promise.finally(() => (clearTimeout(timer), lookers.delete(one)));
  };
  return { ring, until };
}

// ── The operator's process ──────────────────────────────────────────────────────────────────────
type Program = ReturnType<typeof launchOf>;
const none = (): undefined => undefined;
/** What must be closed, or this process never ends. */
const leftOver: (() => unknown)[] = [];
const clearUp = async (): Promise<void> => {
  for (const close of leftOver.splice(0).reverse()) await close();
};
let compiled = '';
/** Ends with this process. */
function launchOf([file = '', ...args]: readonly string[], ring: () => void = none) {
  const { WATCH_NAMESPACE: _, KUBECONFIG: __, ...own } = process.env;
  // The cache makes it twice as fast.
  const env = { ...own, LC_ALL: 'C.UTF-8', NODE_COMPILE_CACHE: (compiled ||= scratch()) };
  const child = spawn(file, args, { env });
  const { promise: ended, resolve } = Promise.withResolvers<string>();
  const kill = (): unknown => child.kill('SIGKILL');
  process.once('exit', kill);
  leftOver.push(kill);
  child.on('error', ({ message }) => (program.complaint += message));
  child.on('close', (code, signal) => (resolve(`${signal ?? code}`), process.off('exit', kill)));
  const lines = [] as Raw[]; // Of its log.
  const program = { child, said: lines, out: '', complaint: '', ended }; // It complains on stderr.
  child.stderr.setEncoding('utf8').on('data', (text) => (program.complaint += text));
  createInterface(child.stdout).on('line', (line) => {
    program.out += `${line}\n`;
    if (line.startsWith('{')) program.said.push(JSON.parse(line));
    ring();
  });
  return program;
}
const launch = (args: readonly string[], ring: () => void = none, ...file: string[]): Program =>
  launchOf([process.execPath, ...(file.length > 0 ? file : [OPERATOR]), ...args], ring);
/** It must end by itself. */
async function finished(program: Program): Promise<Program & { readonly end: string }> {
  const timer = setTimeout(() => program.child.kill('SIGKILL'), 60_000);
  const end = await program.ended.finally(() => clearTimeout(timer));
  return { ...program, end };
}
/** Many run at once: their probes have no port, or any one. */
const runArgs = (kubeconfig: string): string[] =>
  `run --probe-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0 --kubeconfig ${kubeconfig}`.split(' ');

/** Its last wish is clean: exit 0 within 5 s, and nothing on stderr. */
async function endsWell(program: Program): Promise<void> {
  const from = performance.now();
  program.child.kill('SIGTERM');
  assert.is(await program.ended, '0', 'exit code');
  assert.ok(performance.now() - from < 5000, 'within 5 s');
  assert.is(program.complaint, '', 'nothing on stderr');
}

// ── A stage: a server, its actors, and what can be seen ─────────────────────────────────────────
const MIRRORED = [
  ...['/api/v1/pods', '/api/v1/persistentvolumeclaims', '/api/v1/events', '/api/v1/nodes'],
  '/apis/enge.me/v1alpha1/statefulclusters',
];
type Rig = Bell & Sights & { world: World; actors: Actors; program?: Program };
const FAST = {
  ...{ startMs: 150, provisionMs: 50, stopMs: 150, heartbeatMs: 500 },
  ...{ nodeGraceMs: 2000, podGcMs: 500, quarantineMs: 1000 },
};
async function newRig(world: World, options: ActorOptions): Promise<Rig> {
  const bell = newBell();
  const stop = new AbortController();
  leftOver.push(() => stop.abort());
  const project = (raw: Raw) => ({ meta: metaOf(raw), seen: raw as unknown as Seen });
  const common = { world, project, on: bell.ring, signal: stop.signal };
  const plurals = MIRRORED.map((path) => [path.replace(/.*\//, ''), path] as const);
  const feeds = new Map(plurals.map(([plural, path]) => [plural, follow({ ...common, path })]));
  const actors = startActors(world, { ...FAST, ...options }, stop.signal);
  const ready = [...feeds.values()].map((feed) => feed.ready.promise);
  await Promise.all([actors.synced, ...ready]);
  const objects = (plural: string): readonly Seen[] => {
    const items = [...(feeds.get(plural)?.items.values() ?? [])];
    const own = items.filter(({ meta }) => ['default', ''].includes(meta.namespace));
    return own.sort((a, b) => (a.meta.name < b.meta.name ? -1 : 1)).map(({ seen }) => seen);
  };
  const logged = (reason: string): string =>
    json(rig.program?.said.filter((line) => line['msg'] === reason) ?? []);
  const rig: Rig = { ...bell, world, actors, objects, logged };
  return rig;
}
type Method = ApiRequest['method'];
type Sender = { readonly world: Pick<World, 'send'> };
async function order({ world }: Sender, method: Method, path: string, body?: unknown) {
  const patch = method === 'PATCH' && { contentType: MERGE_PATCH };
  const answer = await world.send({ method, path, body, ...patch, timeoutMs: 60_000 });
  if (answer.status < 300) return answer.body as Raw;
  throw new Error(`${method} ${path}: ${JSON.stringify(answer.body)}`);
}
const placeOf = (namespace: string, plural: string, name = ''): string =>
  `/api/v1/namespaces/${namespace}/${plural}${name && `/${name}`}`;
const clusterAt = (namespace: string, name = ''): string =>
  `/apis/enge.me/v1alpha1/namespaces/${namespace}/statefulclusters${name && `/${name}`}`;

/** The first cluster of README.md; all others keep to nodes of their own. */
const [, CODER = ''] =
  /^```yaml\n(apiVersion: enge.me.*?)^```$/ms.exec(fileText('README.md')) ?? [];
const coderCluster = (): Raw => loadAllYaml(CODER)[0] as Raw;
function clusterIn(zone: string, name: string, replicas: number, spec: object = {}): Raw {
  const { spec: usual, ...rest } = coderCluster();
  const pod = { ...usual.template.spec, ...(zone && { nodeSelector: { zone } }) };
  const own = { selector: { matchLabels: { app: name } }, template: { spec: pod }, replicas };
  return { ...rest, metadata: { name }, spec: { ...usual, ...own, ...spec } };
}

const upPods = (rig: Rig, name: string): readonly Seen[] => livePods(rig, name).filter(isUp);
/** What keeps the cluster from being as its spec says, or ''. */
const unsettled = (rig: Rig, name: string, replicas: number): string =>
  pendingOf(rig, name) || (clusterNow(rig, name).spec.replicas === replicas ? '' : 'another spec');
const settles = (rig: Rig, name: string, replicas: number): Promise<void> =>
  rig.until(`${name} has ${replicas}`, () => unsettled(rig, name, replicas));
/** A pod is deleted, and something befalls the operator at once. */
async function losesOne(rig: Rig, name: string, mishap?: () => Promise<void>): Promise<void> {
  const { replicas = 0 } = clusterNow(rig, name).spec;
  const [pod] = upPods(rig, name) as [Seen];
  await order(rig, 'DELETE', pathAt(pod));
  await mishap?.();
  await rig.until('PodDeleted lacks', () => untold(rig, pod, 'PodDeleted'));
  await settles(rig, name, replicas);
}

// ── A proxy that misbehaves ─────────────────────────────────────────────────────────────────────
type Passage = { method: string; path: string; type: string; body: string };
/** An answer of its own, silence, also in a stream, or one that breaks in the middle of a line. */
type Misdeed =
  | { readonly status: number; readonly text: string; readonly headers?: http.OutgoingHttpHeaders }
  | 'hang'
  | 'tear';
/** Listens on loopback, until it is closed, or all is cleared up: then its connections are cut. */
async function opened(server: net.Server) {
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket.on('error', none).on('close', () => sockets.delete(socket)));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as net.AddressInfo;
  const close = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  leftOver.push(close);
  return { url: `http://127.0.0.1:${port}`, sockets, close };
}
const listens = async (server: net.Server): Promise<string> => (await opened(server)).url;
type Front = Awaited<ReturnType<typeof openFront>>;
async function openFront(target: string) {
  const server = http.createServer((request, out) =>
    relay(front, target, request, out)
      .then(() => front.ring())
      .catch(() => out.destroy()),
  );
  const { url, sockets } = await opened(server);
  const front = {
    ...{ url, sockets, passed: [] as Passage[] },
    meddle: none as (passage: Passage) => Misdeed | undefined,
    ring: none as () => void, // After each passage.
  };
  return front;
}
type In = http.IncomingMessage;
type Out = http.ServerResponse;
async function relay(front: Front, target: string, request: In, out: Out): Promise<void> {
  const { method = '', url: path = '', headers } = request;
  const { 'content-type': type = '' } = headers;
  const body = await readText(request);
  const passage = { method, path, type, body };
  front.passed.push(passage);
  const misdeed = front.meddle(passage);
  if (misdeed === 'hang') return;
  if (misdeed && misdeed !== 'tear')
    return void out.writeHead(misdeed.status, misdeed.headers).end(misdeed.text);
  const length = body && { 'content-length': Buffer.byteLength(body) };
  const own = { authorization: 'Bearer admin', ...(type && { 'content-type': type }), ...length };
  const onward = http.request(target + path, { method, headers: own });
  onward.on('error', () => out.destroy()).end(body);
  out.on('close', () => onward.destroy());
  onward.on('response', (answer) => {
    out.writeHead(answer.statusCode ?? 0, { 'content-type': 'application/json' }).flushHeaders();
    // An answer that was cut off must not look like one that has ended.
    answer.on('close', () => (answer.complete ? out.end() : out.destroy()));
    answer.on('data', (chunk: Buffer) => {
      const now = front.meddle(passage);
      if (now === 'hang') return;
      const half = now === 'tear' ? chunk.subarray(0, chunk.length / 2) : chunk;
      out.write(half, () => half !== chunk && out.destroy());
    });
  });
}

let scratches = ''; // One folder for all, so that one listener clears up.
const scratch = (): string => {
  if (!scratches) {
    scratches = fs.mkdtempSync(join(tmpdir(), 'statefulcluster-test-'));
    process.once('exit', () => fs.rmSync(scratches, { recursive: true, force: true }));
  }
  return fs.mkdtempSync(join(scratches, '-'));
};
/** A folder of its own, and what is put into it; returns its path. */
function newDrawer() {
  const folder = scratch();
  const put = (name: string, content: unknown): string => {
    const file = join(folder, name);
    fs.mkdirSync(dirname(file), { recursive: true });
    fs.writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
    return file;
  };
  return { folder, put };
}
/** The embedded server, a proxy before it, and a kubeconfig for the way through it. */
async function newSite(state = newApiServer(crdOnly(), 1, Date.now())) {
  const served = await serve(state);
  leftOver.push(served.close);
  const front = await openFront(served.url);
  const rig = { world: realWorld({ url: served.url, token: 'admin' }) };
  return { state, served, front, config: newDrawer().put('config', configOf(front.url)), rig };
}
/** Read as kinds that the library does not know: it renames the fields of those that it does. */
const objectsIn = (yaml: string): Raw[] =>
  loadAllYaml(yaml.replaceAll(/^kind: /gm, 'kind: Raw')).map((o: Raw) => ({
    ...o,
    kind: `${o['kind']}`.slice(3),
  }));
const manifest = (): Raw[] => objectsIn(fileText('deploy.yaml'));
let crds: readonly Raw[] | undefined;
const crdOnly = () => (crds ??= manifest().filter((o) => o['kind'] === 'CustomResourceDefinition'));

// ── The process ─────────────────────────────────────────────────────────────────────────────────
/** What is wrong: arguments → exit code and words. `@x` is `run` on one kubeconfig. */
const BAD = `
  a command: jump → 2 no command "jump"
  a flag: run --jump → 2 --jump
  a word too many: run now → 2 usage: statefulcluster run
  no value: run --kubeconfig → 2 kubeconfig
  the log: @good --log xml → 2 usage: --log json.pretty
  no workers: @good --workers 0 → 2 usage: --workers N
  many workers: @good --workers many → 2 usage: --workers N
  all and one: @good -A -n x → 2 -A and -n
  the probes: @good --probe-addr 8080 → 2 usage: --probe-addr ADDR
  perhaps a leader: @good --leader-elect=maybe → 2 usage: --leader-elect
  no right to Leases: @mute → 1 leases.* is forbidden: User ".*" cannot get
  no such namespace: @fine --leader-elect-namespace moon → 1 namespaces "moon" not found
  a selector: @fine --selector =, → 1 found '=', expected: !, identifier
  no kubeconfig: run --kubeconfig /absent → 1 cannot read /absent: .*no such file
  a folder: run --kubeconfig / → 1 cannot read .*EISDIR
  not YAML: @text → 1 cannot read .*text
  no current context: @current → 1 names no cluster with a URL: set --kubeconfig or --context
  another context: @good --context moon → 1 no context "moon"
  its cluster: @bare → 1 has no cluster "default"
  not a URL: @url → 1 names no cluster with a URL
  its CA: @ca → 1 no credentials: .*absent
  its plugin: @exec → 1 no credentials: the plugin /absent failed: .*ENOENT
  nobody listens: @dead → 1 cannot be reached: .*ECONNREFUSED
  no such host: @host → 1 cannot be reached: .*nowhere.invalid
  something else: @old → 1 cannot be reached: an answer 200 that no API server gives
  no CRD: @good → 1 does not know StatefulCluster: kubectl apply
  no permission: @fenced → 1 pods is forbidden: User ".*" cannot list
  an error page: @page → 1 502.*Come in|Come in.*502
  a sign-in page: @login → 1 not from an API server.*Come in`;
async function badKubeconfigs(put: (name: string, content: unknown) => string): Promise<void> {
  const state = (crds: readonly Raw[]) => newApiServer(crds, 1, Date.now());
  const shut = Object.assign(state(crdOnly()), { denied: [{ verb: 'list', resource: 'pods' }] });
  const mute = Object.assign(state(crdOnly()), { denied: [{ resource: 'leases' }] });
  const states = { good: state([]), fine: state(crdOnly()), fenced: shut, mute };
  for (const [name, one] of Object.entries(states))
    put(name, configOf((await newSite(one)).served.url));
  for (const [name, status] of Object.entries({ page: 502, login: 200 })) {
    const front = await openFront('');
    front.meddle = () => ({ status, text: `<html>\n<h1>Come in</h1>\n</html>` });
    put(name, configOf(front.url));
  }
  put('old', configOf(await listens(http.createServer((_, answer) => answer.end('{}')))));
  put('text', '{ this: is: not [ yaml');
  put('current', { ...configOf(), 'current-context': '' });
  put('bare', { ...configOf(), clusters: [] });
  put('dead', configOf());
  put('url', configOf('example'));
  put('ca', configOf('https://127.0.0.1:1', {}, { 'certificate-authority': '/absent' }));
  const exec = { command: '/absent', apiVersion: 'client.authentication.k8s.io/v1' };
  put('exec', configOf('https://127.0.0.1:1', { exec }));
  put('host', configOf('https://nowhere.invalid'));
}
/** What is not as the row says, or ''. */
async function tryBad(row: string, folder: string): Promise<string> {
  const [, args = '', code, words = ''] = /: (.*) → (\d) (.*)/.exec(row) ?? [];
  const run = `run --log json --probe-addr 0 --kubeconfig ${folder}/$1`;
  const program = launch(args.replace(/@(\w+)/, run).split(' '));
  const { said, complaint, end: ended } = await finished(program);
  const { level, msg } = said.at(-1) ?? {};
  const line = complaint || (level === 'error' ? `statefulcluster: ${msg}\n` : '');
  const isOne = /^statefulcluster: [^\n]+\n$/.test(line) && !/\bat \S+:\d+|node:/.test(line);
  return isOne && ended === code && RegExp(words).test(line) ? '' : `${row} ⇒ ${ended} ${line}`;
}
const processes = suite('process');
processes.after(clearUp);
processes('process: wrong use, a wrong world → one line, exit code, no stack trace', async () => {
  const { folder, put } = newDrawer();
  await badKubeconfigs(put);
  const wrong: string[] = [];
  const look = async (row: string) => wrong.push(await tryBad(row, folder));
  await inFlight(BAD.trim().split('\n'), 3, look);
  assert.equal(wrong.filter(Boolean), []);
});
processes('process: version, help, run --help → exit code 0, also into a closed pipe', async () => {
  for (const args of [['version'], ['help'], [], ['run', '--help']]) {
    const [plain, closed] = [launch(args), launch(args)];
    closed.child.stdout?.destroy();
    assert.equal([await plain.ended, plain.complaint], ['0', '']);
    assert.ok(plain.out.length > 0);
    assert.equal([await closed.ended, closed.complaint], ['0', ''], `${args} | head -0`);
  }
});

function clientFor(server: string, load = async (config: op.Config) => config) {
  const config = op.newConfig({ server }, {});
  return connect(config, () => load(config));
}
/** The operator behind the proxy, three members Ready. */
async function newBench() {
  const { served, front, config: file, rig: user } = await newSite();
  const rig = await newRig(user.world, { nodes: ['n0', 'n1', 'n2', 'n3'] });
  front.ring = rig.ring;
  const program = launch(runArgs(file), rig.ring);
  rig.program = program;
  await order(rig, 'POST', clusterAt('default'), coderCluster());
  await settles(rig, 'coder', 3);
  return { served, rig, front, client: clientFor(front.url), program, file };
}
let bench: Awaited<ReturnType<typeof newBench>>;
const USUAL = { ...op.BOUNDS };
const putBack = (): void => void Object.assign(op.BOUNDS, USUAL); // What a test has changed.
processes.after.each(putBack);
const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(() => 'resolved').catch((error: unknown) => `${error}`);

processes('process: the example → 3 Ready; a pod is deleted → one Reason everywhere', async () => {
  bench = await newBench();
  for (const pod of upPods(bench.rig, 'coder')) assert.is(labelOf(pod, 'app'), 'coder');
  assert.is(claimsOf(bench.rig).length, 3);
  await losesOne(bench.rig, 'coder');
});
processes('client: DELETE, PATCH → body and type arrive; a wrong UID is a 409', async () => {
  const { client, rig, front } = bench;
  const [pod] = upPods(rig, 'coder') as [Seen];
  const path = pathAt(pod);
  const body = { preconditions: { uid: 'another' } };
  assert.is((await client.send({ method: 'DELETE', path, body })).status, 409);
  assert.is(front.passed.findLast((p) => p.method === 'DELETE')?.body, JSON.stringify(body));
  const { uid, deletedMs } = metaOf(await order(rig, 'GET', path));
  assert.equal([uid, deletedMs], [pod.metadata.uid, undefined], 'the pod stays');
  const contentType = 'application/json-patch+json';
  assert.is((await client.send({ method: 'PATCH', path, body: [], contentType })).status, 200);
  assert.is(front.passed.findLast((p) => p.path === path)?.type, contentType);
  await client.send({ method: 'PATCH', path, body: [{ a: 'a && <b>\u2028é' }], contentType });
  const sent = front.passed.findLast((p) => p.path === path)?.body;
  const why = 'the bytes of Go, by which the data of a revision is compared';
  assert.is(sent, '[{"a":"a \\u0026\\u0026 \\u003cb\\u003e\\u2028é"}]', why);
});
processes('client: silence, a page, a torn stream → one rejection each, in time', async () => {
  const { client, front } = bench;
  const path = placeOf('default', 'pods');
  const deeds: Record<string, [Misdeed, RegExp]> = {
    '?a': ['hang', /no answer in time/],
    '?b': [{ status: 200, text: '<html>' }, /answer 200, not from an API server: <html>/],
    '?d': [{ status: 302, text: '', headers: { location: '/in' } }, /answer 302 that no API/],
    '?e': [{ status: 200, text: '' }, /answer 200 that no API server gives/],
    '?f': [{ status: 200, text: '{"kind":"Pod"}' }, /answer 200 that no API server gives/],
    '?c': ['tear', /clos|terminated|abort/i],
  };
  front.meddle = (p) => deeds[p.path.slice(path.length)]?.[0];
  for (const [query, [, words]] of Object.entries(deeds)) {
    const request = { method: 'GET', path: path + query, timeoutMs: 200 } as const;
    assert.match(await outcome(op.call({ ...stillWorld().world, ...client }, request)), words);
  }
  const stream = client.watch(`${path}?c`, () => undefined, new AbortController().signal);
  assert.match(await outcome(stream), /clos|terminated|abort/i);
  front.meddle = () => undefined;
  assert.is((await client.send({ method: 'GET', path })).status, 200, 'the next one is answered');
});
processes('client: F5: all is swallowed on the way → a watch breaks, a new one opens', async () => {
  Object.assign(op.BOUNDS, { quietMs: 200 });
  const { client, front } = bench;
  const path = `${placeOf('default', 'pods')}?mine`;
  const { promise: seen, resolve } = Promise.withResolvers<void>();
  const signal = AbortSignal.timeout(10_000);
  const watched = outcome(client.watch(`${path}&watch=true`, () => resolve(), signal));
  await seen;
  const get = { method: 'GET', path, timeoutMs: 400 } as const;
  assert.is((await client.send(get)).status, 200);
  front.meddle = (p) => (p.path.includes('?mine') ? 'hang' : undefined);
  const from = performance.now();
  assert.match(await watched, /went silent/);
  assert.match(await outcome(client.send(get)), /aborted due to timeout/);
  assert.ok(performance.now() - from < 2500, 'within the quiet time and the deadline');
  front.meddle = none;
  assert.is((await client.send({ ...get, timeoutMs: 5000 })).status, 200, 'a new connection');
});
processes('client: connections are closed → what comes next goes elsewhere', async () => {
  const { client, front } = bench;
  const before = new Set(front.sockets);
  const get = () => client.send({ method: 'GET', path: placeOf('default', 'pods') });
  const flying = Array.from({ length: 20 }, () => outcome(get()));
  front.sockets.forEach((socket) => socket.end());
  for (const one of flying) assert.match(await one, /resolved|closed|ECONN|hang up/);
  assert.is((await get()).status, 200);
  // A deletion that falls into the gap is no will: the operator's five watches are open again.
  const fresh = (): number => [...front.sockets].filter((s) => !before.has(s)).length;
  await reaches(async () => Number(fresh() > 5), 1);
  for (const replicas of [4, 3]) await change(bench.rig, 'coder', replicas, { replicas });
  assert.is(bench.program.child.exitCode ?? bench.program.child.signalCode, null);
});
processes('client: 500 requests beside watches and the Lease → bounded connections', async () => {
  const lease = '/apis/coordination.k8s.io/v1/namespaces/x/leases/y';
  const open: http.ServerResponse[] = [];
  let most = 0;
  const server = http.createServer(({ url = '' }, out) => {
    if (url === lease) return void out.end('{}');
    out.write(url === '/x' ? '\n' : '{');
    if (url !== '/x') open.push(out);
  });
  const { url, sockets } = await opened(server);
  server.on('connection', () => (most = Math.max(most, sockets.size)));
  const { watch, send } = clientFor(url);
  const stop = new AbortController();
  const watched = Array.from({ length: 10 }, () => watch('/x', () => undefined, stop.signal));
  const { requestsMax } = op.BOUNDS;
  const sent = Array.from({ length: 500 }, () => outcome(send({ method: 'GET', path: '/' })));
  await reaches(async () => open.length, requestsMax);
  const answer = await outcome(send({ method: 'GET', path: lease, timeoutMs: 5000 }));
  for (let done = 0; done < 500;) {
    done += open.length;
    for (const out of open.splice(0)) out.end('}');
    await rest(5);
  }
  assert.equal([...new Set(await Promise.all(sent)), answer], ['resolved', 'resolved']);
  stop.abort();
  await Promise.allSettled(watched);
  assert.ok(most <= requestsMax + 11, `${most} connections`);
});
processes('client: F12: a plugin for credentials hangs → no answer in time, then on', async () => {
  const loads = [rest(400).then(() => Promise.reject<op.Config>(new Error('killed')))];
  const { send } = clientFor(bench.front.url, async (config) => loads.pop() ?? config);
  const request = { method: 'GET', path: placeOf('default', 'pods'), timeoutMs: 200 } as const;
  assert.match(await outcome(send(request)), /no credentials: no answer in time/);
  assert.match(await outcome(send({ ...request, timeoutMs: 5000 })), /no credentials: killed/);
  assert.is(await outcome(send({ ...request, timeoutMs: 5000 })), 'resolved');
});
processes('client: F26: 401 on a watch alone → the credentials are read again', async () => {
  let reads = 0;
  const { watch, send } = clientFor(bench.front.url, async (config) => (reads++, config));
  const path = `${placeOf('default', 'pods')}?watch=true&mine`;
  bench.front.meddle = (p) => (p.path === path ? { status: 401, text: '{}' } : undefined);
  const { status } = await watch(path, () => undefined, new AbortController().signal);
  bench.front.meddle = () => undefined;
  await send({ method: 'GET', path: placeOf('default', 'pods') });
  assert.equal([status, reads], [401, 2]);
});
processes('process: F40: its probes → well, beside idle connections; metrics to read', async () => {
  const { program } = bench;
  const portOf = (flag: string): number =>
    program.said.find((line) => line['msg'] === 'listens' && line['flag'] === flag)?.['port'];
  const [port, other] = [portOf('probe-addr'), portOf('metrics-addr')];
  const page = async (path: string, port = portOf('probe-addr')): Promise<string> => {
    const asked = http.get({ host: '127.0.0.1', port, path, agent: false }); // As kubelet: anew.
    const [answer] = (await once(asked, 'response')) as [In];
    return `${answer.statusCode} ${answer.headers['content-type']} ${await readText(answer)}`;
  };
  const type = 'text/plain; version=0.0.4; charset=utf-8';
  assert.is(await page('/healthz'), `200 ${type} ok\n`);
  assert.match(await page('/readyz'), /^200 .* leader\n.*pods: last event or bookmark \d+ s ago\n/);
  const series = parseMetrics((await page('/metrics', other)).replace(`200 ${type} `, ''));
  const coder = 'namespace="default",name="coder"';
  assert.is(series.get(`statefulcluster_members{${coder},health="Available"}`), 3);
  assert.is(series.get(`statefulcluster_condition{${coder},type="Ready"}`), 1);
  assert.is(series.get('statefulcluster_leader'), 1);
  const ports = Array.from({ length: 1000 }, (_, i) => (i % 2 ? port : other));
  const idle = ports.map((one) => net.connect(one, '127.0.0.1'));
  leftOver.push(() => idle.forEach((socket) => socket.destroy()));
  await Promise.all(idle.map((socket) => once(socket.on('error', none), 'connect')));
  for (const one of [port, other])
    assert.is(await page('/healthz', one), `200 ${type} ok\n`, 'beside 1,000 idle connections');
  const posted = series.get('statefulcluster_api_requests_total{verb="POST",code="201"}');
  assert.ok((posted ?? 0) >= 6, `${posted} POSTs`);
  const second = launch(['run', '--kubeconfig', bench.file, '--probe-addr', `127.0.0.1:${port}`]);
  assert.is(await second.ended, '1');
  assert.match(second.complaint, /^statefulcluster: --probe-addr: .*EADDRINUSE.*\n$/);
});
processes('process: the Lease is lost → one line of JSON, exit code 1', async () => {
  const { rig, served } = bench;
  const [ns, flag] = ['kube-node-lease', '--leader-elect-namespace'];
  const program = launch([...runArgs(served.kubeconfigPath), '-n', 'other', flag, ns], rig.ring);
  const leads = (): Raw | undefined => program.said.find((line) => line['msg'] === 'leads');
  await rig.until('it leads', () => (leads() ? '' : program.complaint || 'not yet'));
  const lease = `/apis/coordination.k8s.io/v1/namespaces/${ns}/leases/${leads()?.['lease']}`;
  await order(rig, 'PATCH', lease, { spec: { holderIdentity: 'somebody' } });
  assert.equal([await program.ended, program.complaint], ['1', '']);
  const { level, msg } = program.said.at(-1) ?? {};
  assert.match(`${level}: ${msg}`, /^error: lost the Lease \S+: somebody holds it$/);
});
processes('process: SIGTERM in mid-write → exit code 0 within 5 s', async () => {
  const { rig, front, program } = bench;
  const isPost = ({ method, path }: Passage) => method === 'POST' && path.includes('/pods');
  front.passed.length = 0;
  const posts = (): number => front.passed.filter(isPost).length;
  // Of the writes some, later all but the watches.
  front.meddle = (p) =>
    posts() > (isPost(p) ? 4 : 6) && !p.path.includes('watch=') ? 'hang' : undefined;
  await order(rig, 'PATCH', clusterAt('default', 'coder'), { spec: { replicas: 20 } });
  await rig.until('it writes', () => (posts() > 6 ? '' : 'not yet'));
  await endsWell(program);
});
if (TESTING) processes.run();

// ── kubeconfigs, and ways through proxies ───────────────────────────────────────────────────────
const pem = (what: string, text: string): string =>
  `-----BEGIN ${what}-----\n${text}\n-----END ${what}-----\n`;
/** Its own authority, for 127.0.0.1. */
const CERT = pem(
  'CERTIFICATE',
  'MIIBSjCB8qADAgECAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAXQwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEw' +
    'MDAwMDBaMAwxCjAIBgNVBAMMAXQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQWahSWBWxrD93KBfqt1EB3Qg0tAf82' +
    'gAmdTcxgMzmOnYeQpMWFtKCFF06oIa+vn7MS39rlISEkmeBNXA9TarURo0MwQTAPBgNVHREECDAGhwR/AAABMA8GA1Ud' +
    'EwEB/wQFMAMBAf8wHQYDVR0OBBYEFMy3wHVup6qx/RJkjsSV7Eb93qxZMAoGCCqGSM49BAMCA0cAMEQCIBfXWkFDWaER' +
    'kW++hoSQJGlg7H3iqYUrDXWDwRgD/SMiAiA8m3SVsiQm2btUrCMtHFJQob2SVgwMzX5wqh177/Ba5g==',
);
const KEY = pem(
  'PRIVATE KEY',
  'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBVl6qvt+BVUI9aa3+0idph0FdQGR8hc0d0vcELO8EyOh' +
    'RANCAAQWahSWBWxrD93KBfqt1EB3Qg0tAf82gAmdTcxgMzmOnYeQpMWFtKCFF06oIa+vn7MS39rlISEkmeBNXA9TarUR',
);
/** What reaches a server that answers every request with the headers that came. */
async function openMirror(secure = false): Promise<string> {
  const answer = (request: In, out: Out): void =>
    void out.end(JSON.stringify({ kind: 'Pod', headers: request.headers }));
  if (!secure) return listens(http.createServer(answer));
  const url = await listens(https.createServer({ cert: CERT, key: KEY }, answer));
  return url.replace('http:', 'https:');
}
/** Asks with this kubeconfig; the answer is the headers that arrived. */
async function askerOf(file?: string, context?: string): Promise<() => Promise<Raw>> {
  const load = () => op.loadConfig(file, context);
  const world = { ...stillWorld().world, ...connect(await load(), load) };
  return async () => (await op.call(world, { method: 'GET', path: '/api/v1/pods/x' }))['headers'];
}
const arrives = async (file?: string, context?: string): Promise<Raw> =>
  (await askerOf(file, context))();
const arrivesBy = (...config: Parameters<typeof configOf>): Promise<Raw> =>
  arrives(newDrawer().put('config', configOf(...config)));
const SURROUNDINGS = { ...process.env };
const configs = suite('kubeconfig');
configs.after(clearUp);
configs.after.each(() => {
  putBack();
  process.env = { ...SURROUNDINGS };
});
configs('kubeconfig: F44: a list → the first of equal names, without missing files', async () => {
  const { folder, put } = newDrawer();
  const one = configOf(await openMirror(true), { token: 'one' }, trusting(CERT), 'one');
  put('a/config', { users: one['users'], contexts: one['contexts'] });
  put('empty', '# nothing\n');
  const users = [{ name: 'one', user: { token: 'b' } }];
  put('b/config', { ...one, 'current-context': 'one', users });
  put('c/config', configOf('http://127.0.0.1:1', { token: 'c' }, {}, 'other'));
  const list = ['absent', 'empty', 'a/config', 'b/config', 'c/config'].map((f) => join(folder, f));
  process.env.KUBECONFIG = list.join(path.delimiter);
  assert.is((await arrives())['authorization'], 'Bearer one');
  assert.is((await op.loadConfig(undefined, undefined)).namespace, 'one');
  assert.is((await op.loadConfig(undefined, 'other')).server, 'http://127.0.0.1:1');
  assert.match(await outcome(arrives(undefined, 'moon')), /no context "moon"/);
  Object.assign(process.env, { KUBECONFIG: '', HOME: folder });
  assert.match(await outcome(arrives()), /the default kubeconfig names no cluster/);
});
configs('kubeconfig: as, as-uid, as-groups → headers', async () => {
  const who = { as: 'me', 'as-uid': '7', 'as-groups': ['a', 'b'] };
  const headers = await arrivesBy(await openMirror(), { token: 't', ...who });
  const named = Object.entries(headers).flatMap(([name, value]) =>
    name.startsWith('impersonate-') ? [`${name.slice(12)}=${value}`] : [],
  );
  assert.equal(named.sort(), ['group=a, b', 'uid=7', 'user=me']);
});
configs('kubeconfig: plain http → no credentials leave, as with kubectl', async () => {
  const { folder, put } = newDrawer();
  put('token', 'secret');
  fs.chmodSync(put('plugin', PLUGIN), 0o755);
  const url = await openMirror();
  const basic = { username: 'u', password: 'p' };
  for (const user of [{ token: 't' }, { tokenFile: 'token' }, basic, exec({})])
    assert.is((await arrives(put('config', configOf(url, user))))['authorization'], undefined);
  assert.is(fs.existsSync(join(folder, 'calls')), false, 'a plugin is not asked');
});
const exec = (more: object): object => ({
  exec: { apiVersion: 'client.authentication.k8s.io/v1', command: './plugin', ...more },
});
configs('kubeconfig: what is not honoured → refused by its name', async () => {
  for (const [user, cluster, words] of [
    [{ 'as-groups': ['a'] }, {}, /as-groups without as/],
    [{ 'auth-provider': { name: 'oidc' } }, {}, /user: auth-provider is not supported/],
    [{ as: 'me', 'as-user-extra': { x: ['y'] } }, {}, /user: as-user-extra is not supported/],
    [{ 'token-file': 'x' }, {}, /user: token-file is not supported/],
    [exec({ interactiveMode: 'Always' }), {}, /interactiveMode is not supported: Always/],
    [exec({ jump: true }), {}, /exec: jump is not supported/],
    [exec({ apiVersion: 'x/v1alpha1' }), {}, /exec: apiVersion is not supported: x\/v1alpha1/],
    [exec({ apiVersion: undefined }), {}, /exec: apiVersion is not supported: none/],
    [{}, { 'proxy-url': 'ftp://x' }, /proxy-url is not supported: ftp:\/\/x/],
    [{}, { 'certificate-authority': 'x', 'insecure-skip-tls-verify': true }, /insecure beside/],
    [{}, { jump: 1 }, /cluster: jump is not supported/],
  ] as const)
    assert.match(await outcome(arrivesBy('https://x', user, cluster)), words);
});
/** A plugin that tells in its token what it was given. */
const PLUGIN = `#!/bin/sh
info=$(printf '%s %s %s' "$1" "$MINE" "$KUBERNETES_EXEC_INFO" | base64 -w 0)
echo x >> "$(dirname "$0")/calls"
cat
printf '{"apiVersion":"client.authentication.k8s.io/v1","status":{"token":"%s"}}' "$info"
`;
configs('kubeconfig: a plugin → beside its file, told of the cluster, asked once', async () => {
  const { folder, put } = newDrawer();
  fs.chmodSync(put('plugin', PLUGIN), 0o755);
  const own = exec({ args: ['a'], env: [{ name: 'MINE', value: 'b' }], provideClusterInfo: true });
  const extension = { name: 'client.authentication.k8s.io/exec', extension: { c: 1 } };
  const server = await openMirror(true);
  const trust = { 'certificate-authority-data': Buffer.from(CERT).toString('base64') };
  const file = put('config', configOf(server, own, { ...trust, extensions: [extension] }));
  const get = await askerOf(file);
  const [headers] = await Promise.all([get(), get()]);
  const token = `${headers['authorization']}`.replace('Bearer ', '');
  const [, info] = /^a b (.*)$/.exec(Buffer.from(token, 'base64').toString()) ?? [];
  const spec = { interactive: false, cluster: { server, ...trust, config: { c: 1 } } };
  const apiVersion = 'client.authentication.k8s.io/v1';
  assert.equal(JSON.parse(info ?? ''), { apiVersion, kind: 'ExecCredential', spec });
  await get();
  assert.is(fs.readFileSync(join(folder, 'calls'), 'utf8'), 'x\n');
});
configs('kubeconfig: F12: a plugin that hangs, fails, says nothing → is named', async () => {
  Object.assign(op.BOUNDS, { pluginMs: 300 });
  const { put } = newDrawer();
  const file = put('config', configOf('https://x', exec({})));
  for (const [script, words] of [
    ['sleep 60', /plugin .*\/plugin failed: no answer within 300 ms/],
    ['echo first >&2; echo why >&2; exit 3', /plugin .*\/plugin failed: why/],
    ['echo "{}"', /plugin .*\/plugin failed: it answered in undefined/],
    ['echo', /plugin .*\/plugin failed: .*JSON/],
  ] as const) {
    fs.chmodSync(put('plugin', `#!/bin/sh\n${script}\n`), 0o755);
    assert.match(await outcome(arrives(file)), words);
  }
});
configs('kubeconfig: token file and authority rotate → read again, without a 401', async () => {
  const { put } = newDrawer();
  const [user, more] = [{ tokenFile: 'token' }, { 'certificate-authority': './ca.pem' }];
  put('token', 'one\n');
  put('ca.pem', rootCertificates[0] ?? '');
  const get = await askerOf(put('config', configOf(await openMirror(true), user, more)));
  const seen = async (): Promise<string> => (await get())['authorization'];
  assert.match(await outcome(get()), /self-signed|signed/);
  put('ca.pem', CERT);
  Object.assign(op.BOUNDS, { credentialsMs: 0 });
  assert.is(await seen(), 'Bearer one', 'the authority is read again after a failure');
  put('token', 'two');
  assert.is(await seen(), 'Bearer two');
});
configs('client: proxy-url, HTTPS_PROXY → through the proxy, to HTTP and HTTPS', async () => {
  const asked: string[] = [];
  const proxy = http.createServer((request, out) => {
    asked.push(`${request.method} ${request.url}`);
    http.get(`${request.url}`, { headers: request.headers }, (answer) => answer.pipe(out));
  });
  proxy.on('connect', (request: http.IncomingMessage, socket: net.Socket) => {
    asked.push(`CONNECT ${request.url}`);
    const [host = '', port] = `${request.url}`.split(':');
    joinTo(socket, host, Number(port), 'HTTP/1.1 200 OK\r\n\r\n');
  });
  const url = await listens(proxy);
  const ca = trusting(CERT);
  const [plain, secure] = [await openMirror(), await openMirror(true)];
  const socks = await openSocks(asked);
  for (const [server, more] of [
    [plain, { 'proxy-url': url }],
    [secure, { ...ca, 'proxy-url': url }],
    [secure, { ...ca, 'proxy-url': socks }],
  ] as const)
    assert.is((await arrivesBy(server, {}, more))['accept'], 'application/json');
  const [to] = secure.split('//').slice(1);
  assert.equal(asked, [`GET ${plain}/api/v1/pods/x`, `CONNECT ${to}`, `SOCKS ${to}`]);
});
/** Bytes to and fro, after a greeting. */
function joinTo(socket: net.Socket, host: string, port: number, greeting: string | Buffer): void {
  const onward = net.connect(port, host, () => socket.write(greeting));
  onward.pipe(socket).pipe(onward);
  leftOver.push(() => (socket.destroy(), onward.destroy()));
}
/** The least of RFC 1928. */
async function openSocks(asked: string[]): Promise<string> {
  const server = net.createServer((socket) => {
    socket.once('data', () => {
      socket.write(Buffer.from([5, 0]));
      socket.once('data', (wish) => {
        const [host, port] = [wish.subarray(4, 8).join('.'), wish.readUInt16BE(wish.length - 2)];
        asked.push(`SOCKS ${host}:${port}`);
        joinTo(socket, host, port, Buffer.from([5, 0, 0, 1, 127, 0, 0, 1, 0, 0]));
      });
    });
  });
  return (await listens(server)).replace('http:', 'socks5h:');
}
/** Server, NO_PROXY → by the proxy or not. */
table('proxy: NO_PROXY', (situation) => {
  const [server = '', NO_PROXY = ''] = situation.split(/ (.*)/);
  return op.proxyOf(new URL(server), { HTTPS_PROXY: 'proxy:3128', NO_PROXY }) ?? 'direct';
})`
nothing: https://a.b → http://proxy:3128
the name, or below it, or all: https://a.b a.b | https://x.a.b a.b | https://x.a.b *.a.b
 | https://x y, * → direct
another name: https://xa.b a.b | https://a.b .a.b → http://proxy:3128
its port, given or usual: https://x:6443 x:6443 | https://x x:443 → direct
another port: https://x:6443 x:443 | https://[fd00::1]:6443 [fd00::1]:443 → http://proxy:3128
an address, or its CIDR: https://10.1.2.3 10.1.2.3 | https://10.1.2.3:6443 10.0.0.0/8
 | https://[fd00::1]:6443 fd00::/8 → direct
another CIDR: https://11.1.2.3 10.0.0.0/8 → http://proxy:3128
this machine, or plain HTTP: https://127.0.0.1:6443 | https://localhost | http://x → direct`;
if (TESTING) configs.run();

// ── The other commands ──────────────────────────────────────────────────────────────────────────
const MINUTE = 60_000;
const DAY = 1440 * MINUTE;
const bornAgo = (ms: number): string => idAt(Date.now() - ms);
const image = (tag: string) => ({ spec: { containers: [{ name: 'main', image: `db:${tag}` }] } });
/** A cluster `web` as it may be found: a is withheld, b fine, c replaced z; three revisions. */
async function newStand() {
  const ids = { a: bornAgo(41 * DAY), b: bornAgo(3 * DAY), c: bornAgo(5 * MINUTE) };
  const stand = { ...(await newSite()), ids: { ...ids, z: bornAgo(50 * DAY) } };
  await setUp(stand.rig, furniture(stand.ids));
  await turn(stand, 'alpha/calm', 'Ready');
  return stand;
}
/** Leaves the cluster one condition, of the spec as it is. */
async function turn({ rig }: Stand, at: string, type: string, message = '', status = 'True') {
  const [ns = '', name] = at.split('/');
  const { generation } = metaOf(await order(rig, 'GET', clusterAt(ns, name)));
  const one = { type, status, reason: 'AllAvailable', message, observedGeneration: generation };
  const conditions = [{ ...one, lastTransitionTime: op.timeText(Date.now()) }];
  const body = { status: { observedGeneration: generation, conditions } };
  await order(rig, 'PATCH', `${clusterAt(ns, name)}/status`, body);
}
type Stand = Awaited<ReturnType<typeof newStand>>;
const hashOf = (tag: string): string => op.revisionHash(image(tag), 0);
const inBox = (tag: string): string => `containers=[{name:main,image:'db:${tag}'}]`; // As image().
const ownedBy = (kind: string, apiVersion: string, name: string): string =>
  `.ownerReferences=[{apiVersion:${apiVersion},kind:${kind},controller:true,` +
  `name:${name},uid:$${name}.uid}]`;
function furniture({ a, b, c, z }: Record<'a' | 'b' | 'c' | 'z', string>): string {
  const own = (id: string): string =>
    `.labels={app:web,${MARK.cluster}:web,${MARK.identity}:'${id}'}`;
  const owned = ownedBy('StatefulCluster', 'enge.me/v1alpha1', 'web');
  const both = `<${b}|${c}>`;
  const names = (id: string): string => `claims:[data-web-${id},wal-web-${id}]`;
  const at = (minutes: number): string => `'${op.timeText(Date.now() - minutes * MINUTE)}'`;
  const since = `observedGeneration:1, lastTransitionTime:${at(7)}`;
  const cause = '.annotations.kubernetes~io/change-cause';
  const hashes = ['1', '2', '3'].map(hashOf).join('|');
  return `
POST namespaces/alpha
POST alpha:stc/calm spec.replicas=0
POST default:leases/statefulcluster .labels.app~kubernetes~io/name=statefulcluster
 spec={holderIdentity:pod-0,leaseDurationSeconds:600,renewTime:'${microTime()}'}
POST default:stc/web ${cause}='to 3' spec.replicas=3 spec.selector.matchLabels.app=web
 spec.template.spec.${inBox('3')}
 spec.volumeClaimTemplates=${json([gi('1Gi'), gi('1Gi', 'wal')])}
POST default:controllerrevisions/web-<${hashes}> revision=<1|2|3> ${own('')} ${owned}
 data.claimTemplates=[] data.template.spec.${inBox('<1|2|3>')} ${cause}=<null|'to 2'|'to 3'>
POST default:pods/web-${both} ${own(both)} ${owned} spec.${inBox('3')}
POST default:pvc/data-web-${both} ${own(both)}
POST default:pvc/wal-web-${both} ${own(both)}
POST default:pvc/<data|wal>-web-${z} ${own(z)} .annotations={${MARK.retired}:NodeGone}
PATCH default:stc/web/status {status:{observedGeneration:1, replicas:3, readyReplicas:1,
 availableReplicas:1, updatedReplicas:2, replacements:4, retiredClaims:2,
 currentRevision:'${hashOf('2')}', updateRevision:'${hashOf('3')}', members:[
 {identity:'${c}', pod:web-${c}, node:n3, revision:'${hashOf('3')}', health:Starting, ${names(c)}},
 {identity:'${a}', pod:'', node:n1, revision:'${hashOf('2')}', health:Withheld, ${names(a)},
 reason:NodeUnreachable, since:${at(9)}},
 {identity:'${b}', pod:web-${b}, node:n2, revision:'${hashOf('3')}', health:Available, ${names(b)}}
 ], retired:[{identity:'${z}', replacedBy:'${c}', reason:NodeGone, at:${at(5)}, ${names(z)}}
 ], conditions:[
 {type:Stalled, status:'True', reason:Refused, message:'exceeded quota: pods=1', ${since}},
 {type:ReplacementWithheld, status:'True', reason:BudgetSpent,
 message:'at most 1 may be replaced', ${since}},
 {type:Ready, status:'False', reason:MembersUnavailable,
 message:'1 of 3 are available; waits\x1b[31m', ${since}}]}}`;
}
const microTime = (agoMs = 0) => new Date(Date.now() - agoMs).toISOString().replace('Z', '000Z');
/** A command in which identities are letters, ten of each. */
const unlettered = ({ ids, config }: Stand, command: string): string[] => {
  const known = Object.entries(ids);
  const words = known.reduce((all, [a, id]) => all.replace(a.repeat(10), id), command);
  const [first = '', ...rest] = words.split(' ');
  return [first, ...(first === 'help' ? [] : ['--kubeconfig', config]), ...rest];
};
/** What it says, with identities as letters, and revisions by their numbers. */
function readable({ ids }: Stand, text: string): string {
  const letters = Object.entries(ids).map(([a, id]) => [id, a.repeat(10)]);
  const names = [...letters, ...['1', '2', '3'].map((tag) => [hashOf(tag), `revision-${tag}`])];
  const named = names.reduce((all, [id = '', name = '']) => all.replaceAll(id, name), text);
  const made = named.replaceAll(/(?<=created )\w{10}/g, 'n'.repeat(10));
  const stable = made.replaceAll(/ \d+s +(?=no node yet|spec\.)/g, ' Ns  ');
  return stable.replaceAll(/\d+s( old| ago)?$/gm, 'Ns$1');
}
/** What a command says, with its exit code when that is not 0. */
async function heard(stand: Stand, command: string): Promise<string> {
  const { out, complaint, end } = await finished(launch(unlettered(stand, command)));
  return readable(stand, `${out}${complaint}${end === '0' ? '' : `exit ${end}\n`}`);
}
/** Runs commands one after the other in one process, which is ten times as fast. */
const ALL = `import(${JSON.stringify(OPERATOR)}).then(async ({ main, BOUNDS }) => {
  process.stderr.write = process.stdout.write.bind(process.stdout);
  const { columns, typed, locale, ...limits } = JSON.parse(process.argv[2]);
  process.env.LC_ALL = locale ?? 'C.UTF-8';
  Object.assign(BOUNDS, limits);
  process.stdout.columns = columns;
  const { Readable } = process.getBuiltinModule('node:stream');
  const stdin = Object.assign(Readable.from([typed]), { isTTY: Boolean(typed) });
  Object.defineProperty(process, 'stdin', { value: stdin });
  for (const args of JSON.parse(process.argv[1])) {
    const code = await main(args);
    console.log((code ? 'exit ' + code : '') + String.fromCharCode(7));
  }
  process.exit();
})`;
async function saidBy(stand: Stand, commands: readonly string[], over = {}): Promise<string[]> {
  const args = JSON.stringify(commands.map((command) => unlettered(stand, command)));
  const program = launch([args, JSON.stringify(over)], none, '--eval', ALL);
  const { out, complaint } = await finished(program);
  assert.is(complaint, '');
  return readable(stand, out).split('\x07\n').slice(0, -1);
}
/** Commands after `$`, each followed by all that it says, or on its line, with its exit code. */
const tells =
  (stand: Stand) =>
  async (texts: TemplateStringsArray, ...inserts: string[]) => {
    const text = String.raw({ raw: texts }, ...inserts);
    const failed = text.replaceAll(/^(\$ .*) → ([12]) (.*)$/gm, '$1\nstatefulcluster: $3\nexit $2');
    const wanted = failed.replaceAll(/^(\$ .*) → (.*)$/gm, '$1\n$2').trim();
    const parts = wanted.split(/^\$ /m).slice(1);
    const commands = parts.map((part) => part.slice(0, part.indexOf('\n')));
    const said = await saidBy(stand, commands);
    assert.is(said.length, parts.length);
    const shown = commands.map((command, i) => `$ ${command}\n${said[i]?.trimEnd()}`);
    assert.is(shown.join('\n'), wanted);
  };
const LEADS = 'Operator: pod-0 leads, renewed Ns ago\n';
const cli = suite('cli');
cli.after(clearUp);
let stand: Awaited<ReturnType<typeof newStand>>;
cli('cli: what is asked → is told, and nothing is written, by plan neither', async () => {
  stand = await newStand();
  await tells(stand)`
$ -A status -n empty
${LEADS}
NAMESPACE  NAME  STATE           LIVE  READY  UP-TO-DATE  AVAILABLE  REPLACED  RETIRED-CLAIMS  AGE
default    web   ▲ Withheld      3/3   1      2           1          4         2               Ns
alpha      calm  ● AllAvailable  0/0                                                           Ns
$ status -n empty
${LEADS}
There are no StatefulClusters in namespace empty.
$ status stc/web
${LEADS}
NAME  STATE       LIVE  READY  UP-TO-DATE  AVAILABLE  REPLACED  RETIRED-CLAIMS  AGE
web   ▲ Withheld  3/3   1      2           1          4         2               Ns

CONDITION              REASON              FOR  MESSAGE
▲ ReplacementWithheld  BudgetSpent         7m   at most 1 may be replaced
× Stalled              Refused             7m   exceeded quota: pods=1
◐ MembersUnavailable   MembersUnavailable  7m   1 of 3 are available; waits\\u001b[31m

HEALTH       IDENTITY    POD             AGE  NODE  REVISION             CLAIMS  SINCE  WHY
▲ Withheld   aaaaaaaaaa                  41d  n1    revision-2 outdated  2       9m     \
NodeUnreachable; judged lost, but the brake holds it
◐ Starting   cccccccccc  web-cccccccccc  5m   n3    revision-3           2              \
see kubectl describe pod; replaced zzzzzzzzzz
● Available  bbbbbbbbbb  web-bbbbbbbbbb  3d   n2    revision-3           2

OVER        AGO  REASON    REPLACED-BY  CLAIMS
zzzzzzzzzz  5m   NodeGone  cccccccccc   2

2 retired claims keep their data. To delete it for ever:
kubectl delete pvc -n default -l enge.me/statefulcluster=web,enge.me/retired=true
To bring an identity back with its data:
statefulcluster restore -n default web zzzzzzzzzz
$ status nobody → 1 statefulclusters.enge.me "nobody" not found
$ plan web
NAME  STATE                 LIVE  READY  UP-TO-DATE  AVAILABLE  REPLACED  RETIRED-CLAIMS  AGE
web   ◐ MembersUnavailable  2/3   0      2           0          4         0               Ns

REASON     EVENT
ScaledOut  created nnnnnnnnnn

CONDITION             REASON              FOR  MESSAGE
◐ MembersUnavailable  MembersUnavailable  7m   0 of 3 members are available; \
waiting for bbbbbbbbbb Pending, cccccccccc Pending

HEALTH     IDENTITY    POD             AGE  CLAIMS  SINCE  WHY
○ Pending  bbbbbbbbbb  web-bbbbbbbbbb  3d   0       Ns  no node yet
○ Pending  cccccccccc  web-cccccccccc  5m   0       Ns  no node yet; replaced zzzzzzzzzz

OVER        AGO  REASON    REPLACED-BY  CLAIMS
zzzzzzzzzz  5m   NodeGone  cccccccccc   0

Nothing was written.
$ plan nobody → 1 statefulcluster.enge.me "nobody" not found
$ adopt statefulset/nobody → 1 statefulsets.apps "nobody" not found
$ restore web x → 1 no member is called "x"
$ restore web bbbbbbbbbb → 1 bbbbbbbbbb of web is not retired
$ rollout history web
REVISION  CHANGE-CAUSE
1         -
2         to 2
3         to 3
$ rollout history web --revision 2
spec:
  containers:
    - name: main
      image: db:2
$ rollout undo web --to-revision 9 → 1 unable to find specified revision 9 in history
$ rollout status web → 1 statefulcluster.enge.me "web" is stalled: exceeded quota: pods=1`;
  const sent = new Set(stand.front.passed.map(({ method }) => method));
  assert.equal([...sent], ['GET']);
});
cli('cli: a narrow terminal → columns are left out before a line wraps', async () => {
  for (const [columns, titles] of [
    [200, 'NAME STATE LIVE READY UP-TO-DATE AVAILABLE REPLACED RETIRED-CLAIMS AGE'],
    [80, 'HEALTH IDENTITY NODE SINCE WHY'],
    [60, 'NAME STATE LIVE READY UP-TO-DATE AVAILABLE AGE'],
  ] as const) {
    const [text = ''] = await saidBy(stand, ['status web'], { columns });
    assert.match(text.replaceAll(/ +/g, ' '), titles);
    const lines = text.split('\n').filter((line) => /^(NAME|web|HEALTH|OVER) /.test(line));
    assert.ok(lines.length > 0 && lines.every(({ length }) => length <= columns), text);
  }
});
cli('cli: a locale without UTF-8 → nothing but ASCII', async () => {
  const [text = ''] = await saidBy(stand, ['status web'], { locale: 'C' });
  assert.match(text, /^\* Withheld +aaaaaaaaaa /m);
  assert.match(text, /^[\0-\x7f]*$/);
});
cli('cli: wrong use → one line, exit code 2, and nothing is sent', async () => {
  const from = stand.front.passed.length;
  await tells(stand)`
$ adopt db --output xml → 2 usage: -o --output json|yaml the object as it is, or would be
$ plan x --output json → 2 "plan" has no --output
$ status web -A → 2 NAME and -A exclude each other
$ status web more → 2 usage: statefulcluster status [NAME]
$ plan → 2 usage: statefulcluster plan NAME
$ plan ../nodes → 2 usage: statefulcluster plan NAME
$ adopt deployment/web → 2 usage: statefulcluster adopt STATEFULSET
$ restore web → 2 usage: statefulcluster restore NAME IDENTITY|POD
$ rollout jump → 2 there is no command "rollout jump": see statefulcluster help
$ rollout undo web --to-revision last → 2 usage: --to-revision N default: the one before the newest
$ rollout status web --timeout 5 → 2 usage: --timeout TIME give up after 90s, 5m, 2h; default: never
$ replace x --force → 2 "replace" has no --force
$ replace x --farce → 2 Unknown option '--farce'
$ stauts web → 2 there is no command "stauts web": did you mean status?
$ rolout undo web → 2 there is no command "rolout undo web": did you mean rollout undo?`;
  assert.is(stand.front.passed.length, from);
});
cli('cli: replace, restore → annotations, on one claim and on all of an identity', async () => {
  await tells(stand)`
$ replace pod/web-bbbbbbbbbb → web gives bbbbbbbbbb up for a new member
$ replace cccccccccc → web gives cccccccccc up for a new member
$ replace web-zzzzzzzzzz → 1 zzzzzzzzzz of web is retired already
$ restore web pod/web-zzzzzzzzzz
zzzzzzzzzz returns as the next member of web that there is room for`;
  const { rig, ids } = stand;
  const noted = async (claim: string): Promise<Strings> =>
    metaOf(await order(rig, 'GET', `${claimsAt}/${claim}`)).annotations;
  assert.is((await noted(`wal-web-${ids.b}`))[MARK.replace], 'true');
  for (const name of ['data', 'wal'])
    assert.is((await noted(`${name}-web-${ids.z}`))[MARK.restore], 'true');
});
const hasSaid = (program: Program, bell: Bell, words: string): Promise<void> =>
  bell.until(words, () => (program.out.includes(words) ? '' : `it said: ${program.out}`));
const webOf = ({ rig }: Stand): Promise<Raw> => order(rig, 'GET', clusterAt('default', 'web'));
cli('cli: rollout undo, pause, restart → the template as a whole, and its cause', async () => {
  await tells(stand)`
$ rollout undo web → statefulcluster.enge.me/web is at revision 2
$ rollout undo web --to-revision 2 → statefulcluster.enge.me/web is at revision 2
$ rollout pause web → statefulcluster.enge.me/web paused
$ rollout resume web → statefulcluster.enge.me/web resumed
$ rollout restart web → statefulcluster.enge.me/web restarted`;
  const { metadata, spec } = await webOf(stand);
  const { annotations } = spec.template.metadata;
  assert.equal(Object.keys(annotations), ['kubectl.kubernetes.io/restartedAt']);
  assert.equal(spec.template, { ...image('2'), metadata: { annotations } });
  assert.is(metadata.annotations['kubernetes.io/change-cause'], 'to 2');
  assert.is(spec.updateStrategy.rollingUpdate.paused, false);
});
cli('cli: the spec is edited while undo reads → the edit stays, exit code 1', async () => {
  const { front, state } = stand;
  const headers = { 'content-type': MERGE_PATCH };
  const edit = { method: 'PATCH', path: clusterAt('default', 'web'), headers };
  const body = { spec: { replicas: 4 } };
  front.meddle = ({ method }) =>
    method === 'PUT' ? void handle(state, { ...edit, body }, Date.now()) : undefined;
  const wanted = /^statefulcluster: .* the object has been modified; .*\nexit 1\n$/;
  assert.match(await heard(stand, 'rollout undo web --to-revision 1'), wanted);
  front.meddle = () => undefined;
  const { spec } = await webOf(stand);
  assert.equal([spec.replicas, spec.template.spec], [4, image('2').spec]);
});
cli('cli: rollout status, status --watch → each change, until it is through, or gone', async () => {
  const { rig, config } = stand;
  const bell = newBell();
  const [rollout, watch] = ['rollout status web', 'status web -w'].map((words) =>
    launch([...words.split(' '), '--kubeconfig', config], bell.ring),
  ) as [Program, Program];
  const says = (program: Program, words: string) => hasSaid(program, bell, words);
  const turns = (available: number, status = 'False'): Promise<void> =>
    turn(stand, 'default/web', 'Ready', `${available} of 4 are available`, status);
  const waits = 'Waiting for statefulcluster.enge.me "web": ';
  await says(rollout, `${waits}the operator has not seen its spec yet\n`);
  await says(watch, '3/4');
  await turns(2);
  await says(rollout, `${waits}2 of 4 are available\n`);
  await says(watch, '2 of 4 are');
  await turns(3);
  await says(rollout, `${waits}3 of 4 are available\n`);
  const late = 'statefulcluster: timed out waiting for the condition\nexit 1\n';
  const said = await heard(stand, 'rollout status web --timeout 1s');
  assert.is(said, `${waits}3 of 4 are available\n${late}`);
  await turns(4, 'True');
  assert.equal([await rollout.ended, rollout.complaint], ['0', '']);
  assert.match(rollout.out, /\nstatefulcluster.enge.me "web" successfully rolled out\n$/);
  await setUp(rig, 'PATCH default:stc/web spec.updateStrategy.type=OnDelete');
  await tells(stand)`
$ rollout status web → 1 rollout status is only available for RollingUpdate strategy type`;
  await order(rig, 'DELETE', clusterAt('default', 'web'));
  assert.equal([await watch.ended, watch.complaint], ['0', '']);
  assert.match(watch.out, /There are no StatefulClusters "web" in namespace default.\n/);
});
/** All that a process said until it said these words. */
async function logged(args: readonly string[], words: string): Promise<string> {
  const bell = newBell();
  const program = launch(args, bell.ring);
  await hasSaid(program, bell, words);
  program.child.kill('SIGKILL');
  return program.out;
}
cli('cli: the Lease is old, gone, or may not be read → who runs, in words', async () => {
  const at = await newStand();
  const { rig, state } = at;
  await logged([...runArgs(at.config), '-n', 'alpha'], 'pod-0 works on an overlapping scope');
  const head = async (): Promise<string | undefined> => (await heard(at, 'status')).split('\n')[0];
  await order(rig, 'PATCH', leaseAt, { spec: { renewTime: microTime(15 * MINUTE) } });
  const old = 'Operator: nobody runs (pod-0, 15m ago): see kubectl get pods -n default';
  assert.is(await head(), old);
  await turn(at, 'default/web', 'ReplacementWithheld', 'no disk');
  const [text] = await saidBy(at, ['rollout status web'], { leaseMs: 50, leaseRetryMs: 20 });
  const why = /: no disk\nstatefulcluster: Operator: nobody runs \(.*\): see .*\nexit 1$/;
  assert.match(text ?? '', why);
  await order(rig, 'DELETE', leaseAt);
  assert.is(await head(), 'Operator: nobody runs yet: kubectl apply -f deploy.yaml');
  state.denied = [{ resource: 'leases' }];
  assert.is(await head(), 'Operator: not known, Leases may not be read');
});
cli('cli: control characters in the words of others → escaped, in logs and errors', async () => {
  const at = await newStand();
  const text = JSON.stringify({ message: 'bad \x1b[2J\r' });
  at.front.meddle = ({ path }) => (path.includes('/leases') ? { status: 500, text } : undefined);
  const out = await logged([...runArgs(at.config), '--log', 'pretty'], 'bad \\u001b[2J\\u000d');
  assert.not.match(out, /\x1b|\r/);
  assert.match(await heard(at, 'status --context \x1b[2J'), 'no context "\\u001b[2J"\nexit 1');
});
cli('cli: replace where a policy deletes data → a terminal is asked, else --yes', async () => {
  const at = await newStand();
  const policy = { persistentVolumeClaimRetentionPolicy: { whenReplaced: 'Delete' } };
  await order(at.rig, 'PATCH', clusterAt('default', 'web'), { spec: policy });
  const loss = 'web deletes the data of bbbbbbbbbb for ever (whenReplaced: Delete)';
  const says = async (flag: string, typed = ''): Promise<string> =>
    `${await saidBy(at, [`replace bbbbbbbbbb${flag}`], { typed })}`;
  assert.is(await says(''), `statefulcluster: ${loss}: say --yes\nexit 2`);
  const asks = `${loss}. Go on? [y/N] `;
  for (const typed of ['\n', 'n\n', 'yesterday\n'])
    assert.is(await says('', typed), `${asks}statefulcluster: nothing was changed\nexit 1`);
  const done = 'web gives bbbbbbbbbb up for a new member\n';
  assert.ok((await says('', 'Yes\n')).startsWith(asks) && (await says('', 'y\n')).endsWith(done));
  assert.match(await says(' -y'), /^web gives bbbbbbbbbb up for a new member/);
});
cli('cli: completion, in a real bash → words, clusters, flags', async () => {
  const calm = 'statefulcluster.enge.me/calm';
  const rows = ['ad', 'rollout re', 'rollout undo state', 'adopt db --o', 'replace x --y'];
  const script = `
statefulcluster() { '${process.execPath}' '${OPERATOR}' "$@"; }
kubectl() { echo ${calm}; }
source <(statefulcluster completion bash)
tab() { COMP_WORDS=(_ "$@") COMP_CWORD=$#; _statefulcluster statefulcluster
  echo "\${COMPREPLY[@]}"; }
${rows.map((row) => `tab ${row}`).join('\n')}`;
  const { out, complaint } = await finished(launchOf(['bash', '--norc', '-c', script]));
  assert.equal([out, complaint], [`adopt\nrestart resume\n${calm}\n--output\n--yes\n`, '']);
});
cli('cli: help of every command → fits a screen', async () => {
  const { out: index } = await finished(launch(['help']));
  const names = [...index.matchAll(/^ {2}((?:rollout )?[a-z]+)/gm)].map(([, name = '']) => name);
  assert.ok(names.length > 12 && index.includes('\nstatefulcluster help COMMAND'), index);
  const pages = await saidBy(
    stand,
    names.map((name) => `help ${name}`),
  );
  assert.is(pages.length, names.length);
  for (const [i, page] of [...pages, index].entries()) {
    const lines = page.trimEnd().split('\n');
    assert.ok(lines.length <= 24 && lines.every((line) => line.length <= 80), page);
    assert.ok(page.startsWith(`statefulcluster ${names[i] ?? ''}`), page);
  }
});
cli('cli: manifest → deploy.yaml; narrowed, few rights beyond the namespace', async () => {
  const plain = await finished(launch(['manifest']));
  const [body = '', comments = ''] = fileText('deploy.yaml').split(/\n# ═══ Monitoring.*\n.*\n/);
  assert.is(plain.out, `${body.trimEnd()}\n`);
  const watched = await finished(launch(['manifest', '--monitoring', '-n', 'team']));
  const named = comments.replaceAll('statefulcluster-system', 'team');
  assert.is(watched.out, named.replaceAll(/^# ?/gm, ''));
  const kinds = (loadAllYaml(watched.out) as Raw[]).map((o) => o['kind']);
  assert.equal(kinds, ['PodMonitor', 'PrometheusRule', 'ConfigMap']);
  const narrowed = 'manifest --namespaced -n team --image here/op:1';
  const { out } = await finished(launch(narrowed.split(' ')));
  const of = (kind: string): Raw[] => objectsIn(out).filter((o) => o['kind'] === kind);
  const rights = (objects: readonly Raw[]): Record<string, string> => {
    const rules: Raw[] = objects.flatMap((o) => o['rules']);
    const all = rules.flatMap(({ apiGroups: [group], resources, verbs }): [string, string][] =>
      resources.map((r: string) => [group ? `${group}/${r}` : r, verbs.join(' ')]),
    );
    return Object.fromEntries(all);
  };
  const { nodes, persistentvolumes, ...inside } = op.RIGHTS;
  assert.equal(rights(of('Role')), inside);
  const wide = of('ClusterRole').filter((o) => o['metadata'].name.endsWith('-team'));
  assert.equal(rights(wide), { nodes, persistentvolumes });
  const bound = of('ClusterRoleBinding').map((o) => o['roleRef'].name);
  assert.is(`${bound}`, `${wide.map((o) => o['metadata'].name)}`);
  assert.equal([of('Namespace').length, of('CustomResourceDefinition').length], [0, 1]);
  assert.not.match(out, /statefulcluster-system| -A\b/);
  for (const kind of ['Deployment', 'Role', 'RoleBinding', 'ServiceAccount'])
    assert.equal([...new Set(of(kind).map((o) => o['metadata'].namespace))], ['team'], kind);
  const [container] = of('Deployment')[0]?.['spec'].template.spec.containers;
  assert.equal(container.args, ['run', '--namespace=team', '--metrics-addr=:8081']);
  assert.match(out, / image: here\/op:1\n/);
  assert.match((await finished(launch(['manifest', '--namespaced']))).complaint, 'needs -n');
});
const POD_INDEX = 'apps.kubernetes.io/pod-index';
const POD_NAME = 'statefulset.kubernetes.io/pod-name';
/** A StatefulSet `db` of 3 with a partition. Nobody acts for it but the garbage collector. */
const DB = `
POST default:statefulsets/db {metadata:{labels:{app:db}}, spec:{replicas:3, serviceName:db,
 selector:{matchLabels:{app:db}},
 template:{metadata:{labels:{app:db}}, spec:{containers:[{name:main,image:'db:1'}]}},
 updateStrategy:{type:RollingUpdate, rollingUpdate:{partition:1}}, volumeClaimTemplates:[
 {metadata:{name:data}, spec:{accessModes:[ReadWriteOnce], resources:{requests:{storage:1Gi}}}}]}}
PATCH default:statefulsets/db/status status={observedGeneration:1,updatedReplicas:3}
POST default:pvc/data-db-<0|1|2> .labels.app=db
POST default:pods/db-<0|1|2> ${ownedBy('StatefulSet', 'apps/v1', 'db')} spec.${inBox('1')}
 .labels={app:db,controller-revision-hash:db-x,${POD_INDEX}:'<0|1|2>',${POD_NAME}:db-<0|1|2>}
 spec.volumes=[{name:data,persistentVolumeClaim:{claimName:data-db-<0|1|2>}}]`;
cli('cli: adopt, cut off at every write → goes on; the same pods, unrestarted', async () => {
  const site = await newSite();
  const rig = await newRig(site.rig.world, { nodes: ['n0', 'n1'] });
  await setUp(rig, DB);
  launch(runArgs(site.served.kubeconfigPath), rig.ring);
  const there = { ...stand, ...site };
  await rig.until('its pods', () => (listed(rig, 'pods').length === 3 ? '' : 'not yet'));
  const uids = listed(rig, 'pods').map((o) => o.metadata.uid);
  await setUp(rig, 'PATCH default:statefulsets/db .labels.argocd~argoproj~io/instance=x');
  await tells(there)`
$ adopt statefulset/db → 1 statefulsets.apps "db" cannot be adopted: who set \
argocd.argoproj.io/instance would make it again (--force adopts it all the same)`;
  await setUp(rig, 'PATCH default:statefulsets/db .labels.argocd~argoproj~io/instance=null');
  assert.match(await heard(there, 'adopt db --dry-run'), /  would let the operator act\n/);
  const written = site.front.passed.filter((p) => p.method !== 'GET' && !p.path.includes('dryRun'));
  assert.equal(written, []);
  for (const cut of [
    /^POST .*statefulclusters\?(?!.*dryRun)/,
    /^DELETE .*\/statefulsets\//,
    /^PATCH .*\/data-db-1\?/,
    /^PATCH .*\/pods\/db-1\?/,
    /^PATCH .*\/statefulclusters\/db\?/,
  ]) {
    site.front.meddle = ({ method, path }) =>
      cut.test(`${method} ${path}`) ? { status: 500, text: '{"message":"cut"}' } : undefined;
    assert.match(await heard(there, 'adopt statefulset/db'), /\nstatefulcluster: cut\nexit 1\n$/);
  }
  site.front.meddle = () => undefined;
  assert.match(await heard(there, 'adopt statefulset/db'), /  done: let the operator act\n/);
  await settles(rig, 'db', 3);
  assert.equal(uidsOf(rig, 'db'), uids);
  const { status, metadata } = clusterNow(rig, 'db');
  assert.equal(status?.members?.map((m) => m.identity).sort(), ['0', '1', '2']);
  assert.equal([status?.replacements, status?.updatedReplicas], [0, 3]);
  assert.is(metadata.annotations, undefined);
  const hash = op.revisionHash({ metadata: { labels: { app: 'db' } }, ...image('1') }, 0);
  const [first] = livePods(rig, 'db') as [Seen];
  const found = [MARK.revision, POD_INDEX, POD_NAME].map((key) => labelOf(first, key));
  assert.equal(found, [hash, '0', 'db-0']);
  assert.is(noteOf(claimsOf(rig, '0')[0], MARK.claims), 'data-db-0');
});
/** What is there beside the set. */
const BESIDE_DB = `
POST default:services/all spec.selector.app=db
POST default:services/one spec.selector={${POD_NAME}:db-1}
POST default:services/other spec.selector={${POD_NAME}:web-1}
POST default:services/second spec.selector={app:db,${POD_INDEX}:'1'}
POST default:poddisruptionbudgets/all spec.selector.matchLabels.app=db
POST default:horizontalpodautoscalers/db spec.at={kind:StatefulSet,name:db}
POST default:configmaps/fine data.port='5432'
POST default:configmaps/names data.peers='db-0.db,db-1.db'
POST default:configmaps/unused data.peers=db-0.db`;
const CUTS = 'set -e\nid=$(hostname | awk -F"-" \'{print $NF}\')';
/** As in cases/adopt-ordinal-script.yaml, and with ConfigMaps in every place that may name one. */
const ORDINAL_SPEC = `
volumes:
  - {name: cuts, configMap: {items: [{key: run.sh, path: r}], name: cuts}}
  - {name: unused, projected: {sources: [{configMap: {name: fine}}]}}
containers:
  - {name: db, image: "db:1", command: [sh, -c, "[[ \`hostname\` =~ -([0-9]+)$ ]] || exit 1"],
     envFrom: [{configMapRef: {name: absent}}], env: [{name: PRIMARY, value: db-0.db},
     {name: PEERS, valueFrom: {configMapKeyRef: {name: names, key: peers}}},
     {name: N, valueFrom: {fieldRef: {fieldPath: "metadata.labels['${POD_INDEX}']"}}}]}`;
cli('cli: adopt, what reads a number → refused; what selects one → listed', async () => {
  const { state, rig, config } = await newSite();
  await setUp(rig, DB + BESIDE_DB);
  const cuts = { metadata: { name: 'cuts' }, data: { 'run.sh': CUTS } };
  await order(rig, 'POST', placeOf('default', 'configmaps'), cuts);
  const says = (flags: string): Promise<string> => heard({ ...stand, config }, `adopt db ${flags}`);
  const hpa = '  horizontalpodautoscalers/db\n';
  const head = '. What names the set, or a pod by its number, is yours to change:\n';
  const listed = `${head}  services/one\n  services/second\n${hpa}`;
  assert.ok((await says('--dry-run')).endsWith(listed));
  const template = { spec: loadAllYaml(ORDINAL_SPEC)[0] };
  await setUp(rig, `PATCH default:statefulsets/db ${json({ spec: { template } })}`);
  assert.match(await says('--dry-run'), 'adopted: 0 of its 3 pods are there at');
  await setUp(rig, 'PATCH default:statefulsets/db/status status.observedGeneration=2');
  const [names, takes] = ['names members by number', 'takes a number out of the host name'];
  const [doubt, absent] = [`it ${names}; it ${takes}`, 'configmaps "absent" not found'];
  const said = await says('--dry-run');
  for (const map of [`cuts ${takes}`, `names ${names}`, `absent is not looked at: ${absent}`])
    assert.match(said, `ConfigMap ${map}`);
  assert.match(said, `adopted: ${doubt}; its ConfigMap`);
  assert.not.match(said, /unused|fine/);
  state.denied = [{ resource: 'configmaps' }];
  const unread = await says('--dry-run');
  assert.match(unread, `adopted: ${doubt} (--force adopts`);
  assert.match(unread, /^ConfigMap cuts is not looked at: configmaps "cuts" is forbidden: /m);
  const kept = `${head}  services/one\n${hpa}`; // The index stays.
  assert.ok((await says('--dry-run --force')).endsWith(kept));
  const { spec } = loadAllYaml(await says('--dry-run -o yaml'))[0] as Raw;
  const { replacementPolicy, podManagementPolicy, updateStrategy } = spec;
  assert.equal([replacementPolicy, podManagementPolicy], ['WhenVolumesLost', 'OrderedReady']);
  assert.equal([spec.ordinals, updateStrategy.rollingUpdate], [{ start: 0 }, { partition: 1 }]);
});
if (TESTING) cli.run();

// ── Conformance ─────────────────────────────────────────────────────────────────────────────────
// One play for the embedded API server and the real one. A row of RECORDED is a request and, after
// `→`, what the real one said when it was last asked: `node operator.test.ts record` prints all
// anew. A line that begins with a space goes on with its row. Paths are of the namespace conform,
// or of x in `x:pods`; `.a.b=c` is metadata.a.b. POST lays its fields over SAMPLES, PUT over the
// object as last seen, PATCH is a merge. `$a.uid` is of the object a, `$a.rv` its newest version,
// `$a.rv1` its first. <x|y> is a request each, SEE tells what a WATCH brought.
// An answer is its code, `=` when the version stayed, and what differs from what was asked for
// (a.{b=1 c=2} is a.b=1 and a.c=2); what is filled into a new object is told once for its kind. Of
// messages the usual frame is left out, what is long ends in a hash; times and UIDs are T and U.

const NAMED = { spec: { containers: [{ name: 'c', image: 'i' }] } };
const RWO = { accessModes: ['ReadWriteOnce'] };
const SAMPLES: Readonly<Record<string, Rec>> = {
  pods: NAMED,
  persistentvolumeclaims: { spec: { ...RWO, resources: { requests: { storage: '1Gi' } } } },
  statefulclusters: {
    ...{ apiVersion: 'enge.me/v1alpha1', kind: 'StatefulCluster' },
    spec: { selector: { matchLabels: { app: 'x' } }, template: NAMED },
  },
  persistentvolumes: { spec: { capacity: { storage: '1Gi' }, ...RWO, hostPath: { path: '/x' } } },
  controllerrevisions: { revision: 1, data: { a: 1 } },
  leases: { spec: { holderIdentity: 'me', leaseDurationSeconds: 15 } },
  storageclasses: { provisioner: 'x' },
  events: { involvedObject: { namespace: 'conform' }, reason: 'Why', type: 'Normal' },
};
const SHORT: Strings = { pvc: 'persistentvolumeclaims', stc: 'statefulclusters' };
const PARAMS: Strings = { ...{ rv: 'resourceVersion', l: 'labelSelector', f: 'fieldSelector' } };
const STREAM = 'sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true';
const PATCHES: Strings = {
  PATCH: MERGE_PATCH,
  STRATEGIC: 'application/strategic-merge-patch+json',
  JSON: 'application/json-patch+json',
  TEXT: 'text/plain',
};
const REASONS: Readonly<Record<number, string>> = {
  ...{ 400: 'BadRequest', 403: 'Forbidden', 404: 'NotFound', 405: 'MethodNotAllowed' },
  ...{ 409: 'Conflict', 410: 'Expired', 415: 'UnsupportedMediaType', 422: 'Invalid' },
  504: 'Timeout',
};
/** One of the two servers. */
interface Side {
  readonly world: World;
  readonly nobody: World; // A user without rights.
  compact(revision: string): Promise<unknown>;
  admit(): Promise<unknown>; // From now on, pods with the label admit get FORCED.
}
type Watching = { readonly events: string[]; ring: () => void; stop: AbortController };
/** What was seen so far, by the name of the object. */
type Sighted = ReturnType<typeof newSighted>;
const newSighted = () => ({
  objects: new Map<string, Rec>(),
  versions: new Map<string, string[]>(),
  told: new Set<string>(),
  watches: new Map<string, Watching>(),
});
const asksOf = (row: string): string => row.split(' → ')[0] ?? '';

const isoTime = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g;
const uuid = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/g;
const inJson = /"\{(\\.|[^"\\])*"/g;
const plainly = (text: string): string =>
  text.replaceAll(isoTime, 'T').replaceAll(uuid, 'U').replaceAll(inJson, '{…}');
/** `path=value` for every leaf; items of lists by their name or type, else by their number. */
function leavesOf(value: unknown, path = ''): readonly string[] {
  if (value === '' || value === null) return []; // Go prints some fields that are not set.
  if (typeof value !== 'object')
    return [`${path}=${typeof value === 'string' ? plainly(value) : JSON.stringify(value)}`];
  return Object.entries(value as Rec).flatMap(([key, inner]) => {
    const { name, type } = recOf(inner);
    const by = Array.isArray(value) ? textOf(name) || textOf(type) || key : key;
    return leavesOf(inner, path === 'metadata' ? `.${by}` : path ? `${path}.${by}` : by);
  });
}
const bodyOf = ({ metadata, ...rest }: Rec): Rec => {
  const { managedFields: _, resourceVersion: __, ...meta } = recOf(metadata);
  return { metadata: meta, ...rest };
};
const UNTOLD = /^(apiVersion|kind|\.(name|namespace|uid|(creation|deletion)Timestamp))=/;
const pathIn = (leaf: string): string => leaf.replace(/=.*/s, '');
/** Leaves that are other than wanted, and with `-` the shortest paths that are not there. */
function changesOf(wanted: Rec, found: Rec): readonly string[] {
  const [old, now] = [leavesOf(bodyOf(wanted)), leavesOf(bodyOf(found))];
  const has = (path: string): boolean =>
    now.some((leaf) => pathIn(leaf) === path || leaf.startsWith(`${path}.`));
  const gone = old.map(pathIn).filter((path) => !has(path) && !/^\.?$/.test(path));
  const highest = gone.map((path) => {
    const parts = path.split('.');
    const at = parts.findIndex((_, i) => i > 0 && !has(parts.slice(0, i + 1).join('.')));
    return at < 0 ? path : parts.slice(0, at + 1).join('.');
  });
  const isNew = (leaf: string): boolean => !old.includes(leaf) && !UNTOLD.test(leaf);
  const news = now.filter(isNew).sort();
  const shown = news.map((leaf) => leaf.replace(/^\.deletionGrace.*=/, 'dies='));
  return [...shown, ...[...new Set(highest)].map((path) => `-${path}`)];
}
function statusText({ code, reason, message, metadata }: Rec, names: readonly string[]): string {
  const [first = ''] = textOf(message).split('\n'); // What follows is Go's picture of the object.
  const all = plainly(first).replaceAll(/(version: |current: |\()\d+/g, '$1N');
  const bare = all.replace(/ in scheme ".*"/, ''); // Where its source lay when it was built.
  const plain = bare.replaceAll(/\s+/g, ' ').trim();
  const frames = ['Operation cannot be fulfilled on @: ', '@ is forbidden: ', '@ is invalid: '];
  const ends = ['@ not found', '@ already exists'];
  const frame = [...frames, ...ends].flatMap((one) => names.map((name) => one.replace('@', name)));
  const words = plain.slice(frame.find((one) => plain.startsWith(one))?.length);
  const hash = createHash('sha256').update(words).digest('hex').slice(0, 4);
  const short = words.length > 24 ? `${words.slice(0, 16).trimEnd()}…${hash}` : words;
  const own = (reason || undefined) === REASONS[Number(code)] ? '' : `${reason || '-'}`;
  const token = recOf(metadata)['continue'] ? 'and a token' : '';
  return [code, own, short, token].filter(Boolean).join(' ');
}
/** `a.b=1 a.c=2` → `a.{b=1 c=2}`. */
const grouped = (leaves: readonly string[]): string =>
  leaves
    .join('\n')
    .replaceAll(/^([^=\n]*\.)[^.=\n]+=.*(\n\1[^.=\n]+=.*)+/gm, (all, parent: string) => {
      const own = all.split('\n').map((leaf) => leaf.slice(parent.length));
      return `${parent}{${own.join(' ')}}`;
    })
    .replaceAll('\n', ' ');
const nameIn = (object: unknown): string => textOf(pathOf(object, 'metadata.name'));
const versionIn = (object: unknown): string => textOf(pathOf(object, 'metadata.resourceVersion'));
function noteVersion(p: Sighted, object: Rec): void {
  const all = p.versions.get(nameIn(object)) ?? [];
  p.versions.set(nameIn(object), all);
  if (!all.includes(versionIn(object))) all.push(versionIn(object));
}

/** Type and object; of one that leaves, its labels, since they are those of before. */
function eventText(p: Sighted, { type, object }: WatchEvent): [type: string, what: string] {
  const raw = recOf(object);
  if (type === 'ERROR') return [type, statusText(raw, [])];
  const isFirst = pathOf(raw, 'metadata.annotations') !== undefined;
  if (type === 'BOOKMARK') return [type, isFirst ? 'of the initial end' : ''];
  const labels = JSON.stringify(pathOf(raw, 'metadata.labels') ?? {}).replaceAll('"', '');
  const known = p.versions.get(nameIn(raw))?.indexOf(versionIn(raw)) ?? -1;
  const at = nameIn(raw) + (known < 0 ? '' : `@${known + 1}`);
  return [type, type === 'DELETED' ? at + labels : at];
}
function openWatch(p: Sighted, world: World, name: string, { request, names }: Asking): void {
  const watching: Watching = { events: [], ring: () => undefined, stop: new AbortController() };
  const seen = (event: string): void => (watching.events.push(event), watching.ring());
  p.watches.set(name, watching);
  // Made words of when it is asked for: versions are known once the answer to the write is here.
  const on = (event: WatchEvent): void => seen(JSON.stringify(event));
  const path = `${request.path}${request.path.includes('?') ? '&' : '?'}watch=true`;
  void world.watch(path, on, watching.stop.signal).then(
    ({ status, body }) => seen(status < 400 ? 'closed' : statusText(recOf(body), names)),
    (error: unknown) => seen(String(error)),
  );
}
/** What the watch has brought, once there are so many events. */
async function seeWatch(p: Sighted, world: World, name: string, count: number): Promise<string> {
  const watching = p.watches.get(name) as Watching;
  const isThere = new Promise<void>((resolve) => {
    watching.ring = () => watching.events.length >= count && resolve();
    watching.ring();
  });
  await Promise.race([isThere, world.sleep(5000)]);
  let last = '';
  const words = watching.events.splice(0).map((event) => {
    const [type, what] = event.startsWith('{') ? eventText(p, JSON.parse(event)) : [event, ''];
    const text = type === last ? what : `${type} ${what}`.trim();
    last = type;
    return text;
  });
  return words.join(' ');
}

/** `[{a:b-c,d:'e f'},2]` as JSON. */
const relaxed = (text: string): unknown =>
  JSON.parse(
    text.replaceAll(/'([^']*)'|"[^"]*"|[A-Za-z_$/][\w./~-]*|\d+[A-Za-z]\w*/g, (word, quoted) =>
      /^(".*"|true|false|null)$/.test(word) ? word : JSON.stringify(quoted ?? word),
    ),
  );
/** `spec.a=1 .labels.b=null` as an object; `~` is a dot in a name. */
function fieldsIn(text: string): unknown {
  if (text === '' || /^[[{]/.test(text)) return text === '' ? undefined : relaxed(text);
  let fields: unknown = {};
  for (const one of text.match(/(?:'[^']*'|[^\s'])+/g) ?? []) {
    const [, path = '', value = ''] = /^(.*?)=(.*)$/s.exec(one) ?? [];
    const keys = path.replaceAll("'", '').replace(/^\./, 'metadata.').split('.');
    const inner = keys.reduceRight((at: unknown, key) => {
      return { [key.replaceAll('~', '.')]: at };
    }, relaxed(value));
    fields = layered(fields, inner);
  }
  return fields;
}
/** One laid over the other, nulls too. */
function layered(under: unknown, over: unknown): unknown {
  if (!isRec(under) || !isRec(over)) return over;
  const keys = [...new Set([...Object.keys(under), ...Object.keys(over)])];
  const value = (key: string) => (key in over ? layered(under[key], over[key]) : under[key]);
  return Object.fromEntries(keys.map((key) => [key, value(key)]));
}
/** `x:pods/a/status?rv=1` → its place. */
function placed(text: string) {
  const [, namespace = 'conform', short = '', rest = '', asked = ''] =
    /^(?:(\w*):)?(\w+)([^?]*)(.*)$/.exec(text) ?? [];
  const plural = SHORT[short] ?? short;
  const row = builtIns.split('\n').find((line) => line.split(' ')[1] === plural);
  const [api = 'enge.me/v1alpha1', , kind = 'StatefulCluster', scope] = row?.split(' ') ?? [];
  const within = scope === 'C' || namespace === '' ? '' : `/namespaces/${namespace}`;
  const root = `${api === 'v1' ? '/api' : '/apis'}/${api}${within}/${plural}`;
  const long = (_: string, mark: string, key: string): string => `${mark}${PARAMS[key] ?? key}=`;
  const query = asked.replace('stream', STREAM).replaceAll(/([?&])(\w+)=/g, long);
  const [, name = '', sub = ''] = rest.split('/');
  const group = api.includes('/') ? `.${api.split('/')[0]}` : '';
  return { root, rest, query, plural, name, sub, called: [plural + group, kind + group] };
}
const VAR = /\$(\w+)\.(\w+)/g;
/** What a row asks for: the request, the names in messages, and what it was and ought to become. */
type Asking = ReturnType<typeof understood>;
function understood(p: Sighted, row: string) {
  const known = (_: string, name: string, what: string): string => {
    const versions = p.versions.get(name) ?? [];
    if (what === 'uid') return textOf(pathOf(p.objects.get(name), 'metadata.uid'));
    return (what === 'rv1' ? versions[0] : versions.at(-1)) ?? '';
  };
  const [, verb = '', at = '', given = ''] = /^(\w+) (\S+) ?(.*)$/s.exec(row) ?? [];
  const { root, rest, query, plural, name, sub, called } = placed(at.replaceAll(VAR, known));
  const fields = fieldsIn(given.replaceAll(VAR, (_, name, what) => `'${known(_, name, what)}'`));
  const own = nameIn(fields) || name;
  const names = called.flatMap((one) => [`${one} "${own}"`, one]);
  const isNew = verb === 'POST' && !sub;
  const sample = mergePatch(SAMPLES[plural] ?? {}, name ? { metadata: { name } } : {});
  const before = isNew ? {} : (p.objects.get(name) ?? {});
  const merged = mergePatch(isNew ? sample : before, fields ?? {}) as Rec;
  const contentType = PATCHES[verb];
  const method = (contentType ? 'PATCH' : verb) as ApiRequest['method'];
  const body = isNew || verb === 'PUT' ? merged : fields;
  const path = root + (isNew ? '' : rest) + query;
  const request = { method, path, body, ...(contentType && { contentType }) };
  const wanted = isNew || /^(PUT|PATCH)$/.test(verb) ? merged : before;
  return { request, names, before, wanted };
}
/** What came back, in the words of the recording. */
function answerText(p: Sighted, asked: Asking, { status, headers, body }: ApiResponse): string {
  const { before, wanted, names, request } = asked;
  const object = recOf(body);
  const warned = headers['warning'] ? ` warns ${headers['warning'].slice(6)}` : '';
  if (status >= 400) return statusText({ ...object, code: status }, names) + warned;
  if (object['kind'] === 'Status') return `${status} ${textOf(object['status'])}${warned}`;
  if (Array.isArray(object['items'])) {
    const { continue: more, remainingItemCount: left } = recOf(object['metadata']);
    p.objects.set('list', { metadata: { uid: more } });
    p.versions.set('list', [versionIn(object)]);
    const rest = more ? [left === undefined ? 'and more' : `and ${left} more`] : [];
    return [status, ...object['items'].map(nameIn), ...rest].join(' ');
  }
  const [isNew, isScale] = [request.method === 'POST', object['kind'] === 'Scale'];
  const kind = textOf(object['kind']);
  const isNews = (leaf: string): boolean => !isNew || !p.told.has(kind + leaf);
  const changed = changesOf(isScale ? {} : wanted, object).filter(isNews);
  if (isNew) changed.forEach((leaf) => p.told.add(kind + leaf));
  const still = versionIn(before) === versionIn(object) && !isNew ? ['='] : [];
  if (!isScale && !request.path.includes('dryRun')) p.objects.set(nameIn(object), object);
  if (!request.path.includes('dryRun')) noteVersion(p, object);
  return [status, ...still, grouped(changed)].filter(Boolean).join(' ') + warned;
}
/** One request, or what a row says instead of one. */
async function playRow(p: Sighted, side: Side, row: string): Promise<string> {
  const [, who, line = ''] = /^(nobody )?(.*)$/s.exec(row) ?? [];
  const world = who ? side.nobody : side.world;
  const [verb = '', name = '', ...more] = line.split(' ');
  if (verb === 'SEE') return seeWatch(p, world, name, Number(more[0]));
  if (verb === 'COMPACT')
    return side.compact(p.versions.get(name)?.at(-1) ?? '').then(() => 'done');
  if (verb === 'ADMIT') return side.admit().then(() => 'done');
  if (verb === 'WATCH') {
    openWatch(p, world, name, understood(p, `GET ${more.join(' ')}`));
    return '';
  }
  const asked = understood(p, line);
  const answer = await world.send(asked.request);
  // The quota admission plugin learns of quotas and of their status from a watch.
  if (!/status unknown for quota/.test(textOf(recOf(answer.body)['message'])))
    return answerText(p, asked, answer);
  await world.sleep(100);
  return playRow(p, side, row);
}
/** Equal answers in a row are counted. */
const together = (answers: readonly string[]): string =>
  answers
    .join('\n')
    .replaceAll(/^(.*)(\n\1)+$/gm, (all, one: string) => `${all.split('\n').length} × ${one}`)
    .replaceAll('\n', ' | ');
/** Rows of the recording's language, each of which must be taken. */
async function setUp({ world }: Sender, text: string): Promise<void> {
  const p = newSighted();
  for (const row of rowsOf(text).flatMap(eachOf)) {
    const asked = understood(p, row);
    const answer = await world.send(asked.request);
    assert.match(answerText(p, asked, answer), /^20/, `${row}: ${JSON.stringify(answer.body)}`);
  }
}
/** Plays all rows; returns them with the answers of this side. */
async function playRows(side: Side, text: string): Promise<readonly string[]> {
  const p = newSighted();
  const rows: string[] = [];
  for (const asks of rowsOf(text).map(asksOf)) {
    const answers: string[] = [];
    for (const one of asks.startsWith('#') ? [] : eachOf(asks))
      answers.push(await playRow(p, side, one));
    rows.push(answers.join('') === '' ? asks : `${asks} → ${together(answers)}`);
  }
  for (const { stop } of p.watches.values()) stop.abort();
  return rows;
}
/** Broken at spaces, as it stands in this file. */
const wrapped = (row: string): string => folded(row, LINE_MAX - 1).join('\n ');
/** Rows that are not as recorded: the request, what was recorded, what came. */
function differences(rows: readonly string[], recorded: string): string {
  const wanted = rowsOf(recorded);
  const all = rows.flatMap((row, i) => {
    const [asks, was = ''] = [asksOf(row), wanted[i]];
    const [a, b] = [was.slice(asks.length + 3), row.slice(asks.length + 3)];
    return was === row ? [] : [`${asks}\n  recorded: ${a}\n  here:     ${b}`];
  });
  return all.join('\n');
}
/** Plays on an embedded server, in virtual time, until it is done. */
async function inSim<T>(play: (sim: Sim, world: World) => Promise<T>): Promise<T> {
  const sim = newSim(1, crdOnly());
  let isOver = false;
  const played = play(sim, sim.world('admin', { cut: false })).finally(() => (isOver = true));
  await Promise.race([played, sim.run(() => isOver)]);
  return played;
}
const playEmbedded = (text: string): Promise<readonly string[]> =>
  inSim((sim, world) => {
    sim.state.denied = [{ user: 'nobody' }];
    const compactNow = async (): Promise<void> => (compact(sim.state), sim.wake());
    const forced: ApiState['mutate'] = (_, plural, object) =>
      plural === 'pods' && object.metadata.labels?.['admit']
        ? (strategicPatch(object, FORCED) as ApiObject)
        : object;
    const admit = async (): Promise<void> => void (sim.state.mutate = forced);
    return playRows({ world, nobody: sim.world('nobody'), compact: compactNow, admit }, text);
  });
const sideOf = (plane: ControlPlane): Side => ({
  world: realWorld(plane),
  nobody: realWorld({ ...plane, token: 'nobody' }),
  compact: (revision) => {
    const body = JSON.stringify({ revision, physical: true });
    return fetch(`${plane.etcdUrl}/v3/kv/compaction`, { method: 'POST', body });
  },
  admit: async () => {
    const from = { world: realWorld(plane) };
    const api = '/apis/admissionregistration.k8s.io/v1/mutatingadmission';
    const specs = { policies: loadAllYaml(FORCING)[0], policybindings: { policyName: 'conform' } };
    for (const [plural, spec] of Object.entries(specs))
      await order(from, 'POST', api + plural, { metadata: { name: 'conform' }, spec });
    const pod = { metadata: { name: 'm', labels: { admit: 'me' } }, ...NAMED };
    const path = `${placeOf('conform', 'pods')}?dryRun=All`;
    const isForced = async () => (await order(from, 'POST', path, pod))['metadata'].labels.team;
    await reaches(async () => Number(await isForced()), 1);
  },
});
/** What admission makes of a pod, in the section Admission, here and in CEL. */
const FORCED = {
  metadata: { labels: { team: '1' } },
  spec: { containers: [{ name: 'c', image: 'i@x' }] },
};
const FORCING = `{ failurePolicy: Fail, reinvocationPolicy: Never,
  matchConstraints: { resourceRules: [
    { apiGroups: [''], apiVersions: [v1], resources: [pods], operations: [CREATE, UPDATE] }] },
  matchConditions: [{ name: a, expression: "object.metadata.?labels.?admit.hasValue()" }],
  mutations: [{ patchType: ApplyConfiguration, applyConfiguration: { expression: "Object{
    metadata: Object.metadata{labels: {'team': '1'}},
    spec: Object.spec{containers: [Object.spec.containers{name: 'c', image: 'i@x'}]}}" } }] }`;

const RECORDED = String.raw`
# kube-apiserver v1.36.2
# What is there and what is not
POST namespaces/conform → 201 .labels.kubernetes.io/metadata.name=conform
 spec.finalizers.0=kubernetes status.phase=Active
WATCH <brief pods?timeoutSeconds=1&l=app=none|future pods?rv=999999999&timeoutSeconds=2|later
 pods?stream&rv=999999999>
GET <pods/absent|pods/absent/status|pods/absent/jump|leases/absent|x:pods> → 2 × 404 | 404 the
 server could…2543 | 404 | 200
POST absent:pods/a → 404 namespaces "abse…7fe2
<PATCH|STRATEGIC|PUT> pods/absent .name=absent spec.containers=[{name:c,image:i}] → 3 × 404
DELETE <pods/absent|pvc/absent|stc/absent|namespaces/absent> → 4 × 404
POST pods/absent/<eviction|binding> .name=absent → 404 | 500 target.name: Req…30a9
POST pods/absent/binding .name=<absent|x> target.name=n → 404 | 400 name in URL does…8f35
PUT pods {} → 405 the server does…3711
POST pods/a apiVersion=<v2|apps/v1> → 400 Pod in version "…9aa8 | 400 Pod in version "…bbda
POST pods/a .namespace=other → 400 the namespace of…93b6
POST stc/a kind=<null|Other> → 400 the object provi…c0e5 | 422 Other.enge.me "a…c063
nobody GET <pods|pods/a|:nodes|stc|pods/a/status> → 403 User "nobody" ca…e515 | 403 User "nobody"
 ca…1901 | 403 User "nobody" ca…63f9 | 403 User "nobody" ca…c4e5 | 403 User "nobody" ca…e09d
nobody POST pods/a → 403 User "nobody" ca…a0d2
nobody PATCH stc/a/status {} → 403 User "nobody" ca…8630
POST nodes/conform-n spec.taints=[{key:a,effect:NoSchedule}] → 201 spec.taints.1.{effect=NoSchedule
 key=node.kubernetes.io/not-ready} status.daemonEndpoints.kubeletEndpoint.Port=0
PATCH nodes/conform-n/status status.conditions=[{type:Ready,status:'True'}]
 status.allocatable={cpu:4,memory:1Gi,pods:99} → 200
STRATEGIC nodes/conform-n spec.taints=<[{key:b,effect:NoExecute}]|[{key:b,effect:NoSchedule}]|[]> →
 200 spec.taints.0.{effect=NoExecute key=b} -spec.taints.1 | 200 spec.taints.0.effect=NoSchedule |
 200 -spec.taints
STRATEGIC nodes/conform-n/status status.conditions=<[{type:Ready,status:Unknown}]|[]> → 200
 status.conditions.Ready.status=Unknown | 200 =
# Pods are made
POST pods/<a|a> → 201 .generation=1 spec.containers.c.{imagePullPolicy=Always
 terminationMessagePath=/dev/termination-log terminationMessagePolicy=File}
 spec.{dnsPolicy=ClusterFirst enableServiceLinks=true preemptionPolicy=PreemptLowerPriority
 priority=0 restartPolicy=Always schedulerName=default-scheduler terminationGracePeriodSeconds=30}
 spec.tolerations.0.{effect=NoExecute key=node.kubernetes.io/not-ready operator=Exists
 tolerationSeconds=300} spec.tolerations.1.{effect=NoExecute key=node.kubernetes.io/unreachable
 operator=Exists tolerationSeconds=300} status.{phase=Pending qosClass=BestEffort} | 409
 AlreadyExists
GET pods/a → 200 =
POST pods/<A|a_b|a.b-|-> → 422 metadata.name: I…b5fc | 422 metadata.name: I…0c90 | 422
 metadata.name: I…d37b | 422 metadata.name: I…988e
POST pods → 422 metadata.name: R…e89a
POST pods/b spec.containers=<[]|[{image:i}]|[{name:c}]|[{name:c,image:i},{name:c,image:i}]> → 422
 spec.containers:…5577 | 422 spec.containers[…8c9b | 422 spec.containers[…2ece | 422
 spec.containers[…2429
POST pods/b spec.containers=[{name:c,image:i,volumeMounts:[{name:v,mountPath:/v}]}] → 422
 spec.containers[…ea44
POST pods/b spec.<restartPolicy=Sometimes|restartPolicy=always|activeDeadlineSeconds=0> → 422
 spec.restartPoli…bc73 | 422 spec.restartPoli…dbb6 | 422 spec.activeDeadl…868e
POST pods/b spec.containers=[{name:c,image:i,resources:{requests:{cpu:2},limits:{cpu:1}}}] → 422
 spec.containers[…0349
POST pods/b .labels.a=<'-'|'a b'> → 422 metadata.labels:…a785 | 422 metadata.labels:…8b53
POST pods/b .<labels|annotations>.'a b'=c → 422 metadata.labels:…7477 | 422 metadata.annotat…d053
POST pods/b .ownerReferences=[{apiVersion:v1,kind:Pod,name:a,uid:<''|u>}] → 422
 metadata.ownerRe…6643 | 201
POST pods/b?dryRun=All .labels.a=b → 409 AlreadyExists
DELETE pods/b?dryRun=All gracePeriodSeconds=0 → 200 dies=0 .generation=2
GET pods/b → 404
POST pods/a?dryRun=All spec.containers=[{name:c,image:<i|''>}] → 409 AlreadyExists | 422
 spec.containers[…2ece
POST pods/b?dryRun=Some → 422 CreateOptions.me…93eb
POST pods/b .labels.app=x .annotations.n=v spec.nodeName=conform-n spec.hostname=b spec.subdomain=s
 spec.containers=[{name:c,image:'i:1',resources:{limits:{cpu:100m,memory:64Mi}}}]
 spec.volumes=[{name:v,persistentVolumeClaim:{claimName:v}},{name:e}]
 spec.tolerations=[{key:node.kubernetes.io/not-ready,operator:Exists,effect:NoExecute}] → 201
 spec.containers.c.imagePullPolicy=IfNotPresent spec.containers.c.resources.requests.{cpu=100m
 memory=64Mi} status.qosClass=Guaranteed
POST pods/q .uid=u .generation=7 .resourceVersion=<'5'|null> status.phase=Running → 500
 resourceVersion…5ac4 | 201
POST pods/neg spec.terminationGracePeriodSeconds=-1 → 201 spec.terminationGracePeriodSeconds=1
# Pods are changed
PATCH pods/a .labels.a=<b|b> → 200 | 200 =
PATCH pods/a?dryRun=All .labels.a=c → 200 =
PATCH pods/a .resourceVersion=<$a.rv1|'1'|$a.rv> .labels.a=d → 2 × 409 the object has b…0a48 | 200
PATCH pods/a .uid=<u|$a.uid> .labels.a=e → 422 metadata.uid: In…28ae | 200
PATCH pods/a .<name|namespace>=b → 400 the name of the…ef3a | 400 the namespace of…93b6
PATCH pods/a .labels=null
 .ownerReferences=[{apiVersion:v1,kind:Pod,name:b,uid:$b.uid,controller:true}] → 200
PATCH pods/a .ownerReferences=<[]|null> → 200 | 200 =
PATCH pods/a .generation=9 .creationTimestamp=null → 200 = .generation=1
PATCH pods/a spec.<nodeName=n|hostname=n|terminationGracePeriodSeconds=1> → 3 × 422 spec:
 Forbidden:…a215
PATCH pods/a spec.containers=<[]|[{name:c,image:'i:2'}]|[{name:d,image:i}]> → 422
 [spec.containers…679e | 2 × 422 spec: Forbidden:…a215
PATCH pods/a spec.activeDeadlineSeconds=<5|3> → 200 .generation=2 | 200 .generation=3
PATCH pods/a status.phase=Failed → 200 = status.phase=Pending
STRATEGIC pods/b spec.containers=[{name:<c|d|c>,image:<'i:2'|'i:2'|''>}] → 200 .generation=2
 spec.containers.c.image=i:2 | 422 spec.containers:…f79b | 422 spec.containers[…2ece
STRATEGIC pods/b .labels.app=null .labels.c=d .annotations.n=null → 200 .labels.c=d -.labels.app
 -.annotations
STRATEGIC pods/b spec.tolerations=[{key:k,operator:Exists}] → 200 .generation=3
 spec.tolerations.0.key=k spec.tolerations.1.key=node.kubernetes.io/not-ready
 spec.tolerations.2.{effect=NoExecute key=node.kubernetes.io/unreachable operator=Exists
 tolerationSeconds=300} -spec.tolerations.0.effect
JSON pods/b [{op:add,path:/metadata/labels/j,value:k}] → 200 .labels.j=k
JSON pods/b [{op:test,path:/metadata/labels/j,value:<x|k>},{op:remove,path:/metadata/labels/j}] →
 422 the server rejec…05dc | 200 -.labels.j
JSON pods/b [{op:remove,path:/metadata/labels/absent}] → 422 the server rejec…05dc
<JSON|PATCH|TEXT> pods/b <{op:add}|[]|{}> → 400 error decoding p…4116 | 400 error decoding p…bb70 |
 415 415: Unsupported…4f21
PUT pods/b .resourceVersion=<$b.rv|$b.rv1|null> .labels.app=y → 200 | 409 the object has b…0a48 |
 200 =
PUT pods/b .uid=u → 409 StorageError: in…0a8c
PUT pods/b .<name|namespace>=other → 400 the name of the…bb27 | 400 the namespace of…93b6
# Status, binding, resize, eviction
PATCH pods/a/status status.phase=Running status.conditions=[{type:Ready,status:'True'}]
 spec.nodeName=z → 200 -spec.nodeName
STRATEGIC pods/a/status status.conditions=[{type:<PodScheduled|Ready>,status:<'True'|'False'>}] →
 200 status.conditions.PodScheduled.{status=True type=PodScheduled} | 200
 status.conditions.Ready.status=False
PATCH pods/a/status status.phase=Running → 200 =
POST pods/a/binding .name=a target.kind=Node target.name=conform-n → 201 Success
GET pods/a → 200 spec.nodeName=conform-n
POST pods/a/binding .name=a target.kind=Node target.name=<conform-n|m> → 2 × 409 Operation
 cannot…b1e8
STRATEGIC pods/<b|a>/resize spec.containers=[{name:c,resources:{requests:{cpu:50m}}}] → 422 spec:
 Invalid va…cacf | 422 spec: Invalid va…845e
STRATEGIC pods/b/resize<|?dryRun=All>
 spec.containers=[{name:c,resources:{requests:{cpu:50m},limits:{cpu:50m}}}] → 200 .generation=4
 spec.containers.c.resources.limits.cpu=50m spec.containers.c.resources.requests.cpu=50m | 200 =
STRATEGIC pods/b/resize .resourceVersion=$b.rv1
 spec.containers=[{name:c,resources:{requests:{cpu:9m},limits:{cpu:9m}}}] → 409 the object has
 b…0a48
STRATEGIC pods/b spec.containers=[{name:c,resources:{requests:{cpu:9m},limits:{cpu:9m}}}] → 422
 spec: Forbidden:…a215
POST pods/q/eviction .name=q deleteOptions.preconditions.uid=$q.uid → 201 Success
GET pods/q → 404
POST pods/b/eviction .name=b → 201 Success
GET pods/b → 200 dies=30 .generation=5 status.conditions.DisruptionTarget.{lastTransitionTime=T
 message=Eviction API: evicting reason=EvictionByEvictionAPI status=True type=DisruptionTarget}
POST pods/b/eviction .name=b → 201 Success
# Pods are deleted
DELETE pods/a preconditions.uid=u → 409 the UID in the p…94b0
DELETE pods/a preconditions.uid=$a.uid preconditions.resourceVersion=$a.rv1 → 409 the
 ResourceVers…f0e2
DELETE pods/a preconditions.uid=$a.uid dryRun=[All] → 200 = dies=30 .generation=4
DELETE pods/a gracePeriodSeconds=20 preconditions.uid=$a.uid preconditions.resourceVersion=$a.rv →
 200 dies=20
DELETE pods/a gracePeriodSeconds=<25|20|10|1> → 2 × 200 = | 200 dies=10 | 200 dies=1
PATCH pods/a .labels.late=x → 200
PATCH pods/a .finalizers=[x/y] → 422 metadata.finaliz…0f05
POST pods/a/binding .name=a target.kind=Node target.name=conform-n → 409 Operation cannot…78e5
PATCH pods/a/status status.phase=Succeeded → 200
DELETE pods/a gracePeriodSeconds=0 preconditions.uid=$a.uid → 200 dies=0
GET pods/a → 404
POST pods/zero spec.nodeName=conform-n spec.terminationGracePeriodSeconds=0 → 201
DELETE pods/<zero|neg> <|gracePeriodSeconds=-1> → 2 × 200 dies=0 .generation=2
POST pods/held spec.nodeName=conform-n .finalizers=[x/y] → 201
DELETE pods/held propagationPolicy=<Wrong|Background> → 422 DeleteOptions.me…00c4 | 200 dies=30
 .generation=2
DELETE pods/held <gracePeriodSeconds=0|> → 200 dies=0 | 200 =
PATCH pods/held .finalizers=<[x/y,z/y]|null> → 422 metadata.finaliz…a433 | 200 =
GET pods/held → 404
DELETE pods/b?gracePeriodSeconds=0 → 200 dies=0
POST pods/<f|done> spec.nodeName=conform-n → 2 × 201
DELETE pods/f propagationPolicy=Foreground → 200 dies=30 .finalizers.0=foregroundDeletion
 .generation=2
PATCH pods/f .finalizers=null → 200
DELETE pods/f gracePeriodSeconds=0 → 200 dies=0
POST pods/o → 201
DELETE pods/o propagationPolicy=Orphan → 200 dies=0 .finalizers.0=orphan .generation=2
PATCH pods/o .finalizers=null → 200 =
PATCH pods/done/status status.phase=Failed → 200
DELETE pods/done → 200 dies=0 .generation=2
# Claims, volumes, classes
POST storageclasses/conform-grows allowVolumeExpansion=true → 201 reclaimPolicy=Delete
 volumeBindingMode=Immediate
POST storageclasses/conform-fixed → 201
POST pvc/<claim|claim> spec.storageClassName=conform-grows → 201
 .finalizers.0=kubernetes.io/pvc-protection spec.volumeMode=Filesystem status.phase=Pending | 409
 AlreadyExists
POST pvc/bad spec.accessModes=<[]|[Other]> → 422 spec.accessModes…aef3 | 422 spec.accessModes…6961
POST pvc/bad spec.resources=<null|{requests:{storage:0}}> → 422 spec.resources[s…60ad | 422
 spec.resources[s…ae63
PATCH pvc/claim spec.resources.requests.storage=2Gi → 422 spec: Forbidden:…41cc
PATCH pvc/claim .labels.enge~me/retired='true' .annotations.enge~me/retired=PodDeleted → 200
PATCH pvc/claim spec.<storageClassName=conform-fixed|accessModes=[ReadWriteMany]> → 2 × 422 spec:
 Forbidden:…41cc
PATCH pvc/claim spec.volumeName=<conform-v|other> → 200 | 422 spec: Forbidden:…41cc
PATCH pvc/claim/status status.phase=Bound status.capacity.storage=1Gi → 200
PATCH pvc/claim spec.resources.requests.storage=<2Gi|2Gi|3Gi|2Gi|1Gi|512Mi> → 200 | 200 = | 2 × 200
 | 2 × 422 spec.resources.r…df24
PATCH pvc/claim/status status.capacity.storage=3Gi → 200
POST pvc/fixed spec.storageClassName=conform-fixed spec.volumeName=conform-w → 201
PATCH pvc/fixed/status status.phase=Bound status.capacity.storage=1Gi → 200
PATCH pvc/fixed spec.resources.requests.storage=2Gi → 403 only dynamically…f113
DELETE pvc/claim preconditions.uid=<$claim.uid|u> preconditions.resourceVersion=$claim.rv1 → 409
 the ResourceVers…f0e2 | 409 the UID in the p…94b0
DELETE pvc/claim preconditions.uid=$claim.uid preconditions.resourceVersion=$claim.rv → 200 dies=0
DELETE pvc/claim preconditions.uid=$claim.uid → 200 =
PATCH pvc/claim .finalizers=null → 200 =
GET pvc/claim → 404
DELETE pvc/fixed → 200 dies=0
PATCH pvc/fixed .finalizers=[] → 200 =
POST persistentvolumes/conform-v spec.storageClassName=conform-grows → 201
 .finalizers.0=kubernetes.io/pv-protection spec.{persistentVolumeReclaimPolicy=Retain
 volumeMode=Filesystem} status.{lastPhaseTransitionTime=T phase=Pending}
PATCH persistentvolumes/conform-v/status status.phase=Bound → 200
PATCH persistentvolumes/conform-v spec.capacity.storage=2Gi → 200
DELETE persistentvolumes/conform-v → 200 dies=0
PATCH persistentvolumes/conform-v .finalizers=null → 200 =
# Clusters
POST stc/<one|one> → 201 .generation=1 spec.liveness.{maxRestarts=0 nodeGoneSeconds=30
 nodeUnreachableSeconds=300 startupSeconds=0 unreadySeconds=0 volumeLostSeconds=60}
 spec.minReadySeconds=0 spec.persistentVolumeClaimRetentionPolicy.{whenDeleted=Retain
 whenLost=Retain whenReplaced=Retain whenScaled=Retain} spec.{podManagementPolicy=Parallel
 replacementPolicy=Always replicas=1 revisionHistoryLimit=10 suspend=false}
 spec.updateStrategy.rollingUpdate.{maxSurge=0 maxUnavailable=1 partition=0 paused=false
 podUpdatePolicy=InPlaceIfPossible} spec.updateStrategy.type=RollingUpdate
 status.observedGeneration=-1 | 409 AlreadyExists
PATCH stc/one spec.replicas=<3|3|null|-1> → 200 .generation=2 | 200 = | 200 .generation=3
 spec.replicas=1 | 422 [spec.replicas:…f81f
PATCH stc/one spec.jump=1 other=2 → 200 = -spec.jump -other warns "unknown field \"other\"", 299 -
 "unknown field \"spec.jump\""
PATCH stc/one?fieldValidation=<Strict|Ignore> spec.jump=1 → 422 "" is invalid: p…6d48 | 200 =
 -spec.jump
PATCH stc/one spec.<selector.matchLabels.app=y|serviceName=s|podManagementPolicy=s|template=null> →
 422 spec.selector: I…95a3 | 422 spec: Invalid va…cce8 | 422 [spec.podManagem…1d90 | 422
 [spec.template:…f7fa
PATCH stc/one .annotations.enge~me/paused='true' → 200
PATCH stc/one status.replicas=3 → 200 = -status.replicas
PATCH stc/one/status status.replicas=3 status.selector='app=x' spec.replicas=9 .labels.s=t → 200
 spec.replicas=1 -.labels
PATCH stc/one/status .uid=<$one.uid|u> .resourceVersion=$one.rv status.readyReplicas=2 → 200 | 200
 =
PATCH stc/one/status .resourceVersion=$one.rv1 status.readyReplicas=1 → 409 the object has b…0a48
PATCH stc/one/status status.conditions=[{type:Ready}] → 422 [status.conditio…0545
PATCH stc/one/status status=null → 200 status.observedGeneration=-1
GET stc/one/scale → 200 = spec.replicas=1 status.replicas=0
PATCH stc/one/scale spec.replicas=<5|5|-1> → 2 × 200 spec.replicas=5 status.replicas=0 | 422
 [spec.replicas:…f81f
PATCH stc/one/scale .resourceVersion=$one.rv1 spec.replicas=6 → 409 the object has b…0a48
GET stc/one → 200 .generation=4 spec.replicas=5
PUT stc/one .resourceVersion=<$one.rv|$one.rv1|null> spec.replicas=2 → 200 .generation=5 | 409 the
 object has b…0a48 | 422 metadata.resourc…a1b3
STRATEGIC stc/<one|absent> spec.replicas=2 → 2 × 415 the body of the…2214
JSON stc/one [{op:replace,path:/spec/replicas,value:4}] → 200 .generation=6 spec.replicas=4
POST stc/two .finalizers=[x/y] .labels.a=b → 201
DELETE stc/two propagationPolicy=<Foreground|Background> → 200 dies=0
 .finalizers.1=foregroundDeletion .generation=2 | 200 -.finalizers.1
PATCH stc/two spec.replicas=3 → 200 .generation=3
PATCH stc/two .finalizers=null → 200 =
DELETE stc/one preconditions.uid=u → 409 the UID in the p…94b0
DELETE stc/one propagationPolicy=Orphan → 200 dies=0 .finalizers.0=orphan .generation=7
JSON stc/one [{op:remove,path:/metadata/finalizers}] → 200 = -.finalizers
GET stc/one → 404
POST stc/lists spec.template.spec.containers=[{name:c,ports:[{containerPort:53}]}] → 201
 spec.template.spec.containers.c.ports.0.protocol=TCP
JSON stc/lists [{op:add, path:/spec/template/spec/containers/0/ports/-,
 value:{containerPort:<53|54>}}] → 422 spec.template.sp…703b | 200 .generation=2
 spec.template.spec.containers.c.ports.1.{containerPort=54 protocol=TCP}
PATCH stc/lists spec.template.spec.<volumes={name:a}|containers=[]|containers=[{name:d}]> → 422
 [spec.template.s…dd8c warns "unknown field \"spec.template.spec.volumes.name\"" | 422
 spec.template.sp…b0f0 | 200 .generation=3
POST stc/three → 201
DELETE stc/<three|lists> → 2 × 200 Success
# Revisions, Leases, Events
POST controllerrevisions/<rev|rev> .labels.a=b → 201 | 409 AlreadyExists
PATCH controllerrevisions/rev data.a=<2|1> → 422 data: Invalid va…7f8a | 200 =
PATCH controllerrevisions/rev revision=<2|2|-1> → 200 | 200 = | 422 revision: Invali…cb19
PATCH controllerrevisions/rev .resourceVersion=$rev.rv1 revision=3 → 409 the object has b…0a48
POST controllerrevisions/bad <revision=-1|data=null> → 422 revision: Invali…cb19 | 422 data:
 Required v…1798
DELETE controllerrevisions/rev preconditions.uid=<u|$rev.uid> → 409 the UID in the p…94b0 | 200
 Success
POST leases/<lease|lease> → 201 | 409 AlreadyExists
PUT leases/lease spec.holderIdentity=you spec.renewTime='2026-01-01T00:00:00.000000Z' → 200
PUT leases/lease .resourceVersion=<$lease.rv1|null> → 409 the object has b…0a48 | 422
 metadata.resourc…a1b3
PATCH leases/lease .resourceVersion=$lease.rv1 spec.holderIdentity=z → 409 the object has b…0a48
PATCH leases/lease spec.leaseDurationSeconds=<0|-1|20> → 422 spec.leaseDurati…629d | 422
 spec.leaseDurati…d727 | 200
PATCH leases/lease spec.<leaseTransitions=-1|holderIdentity=null> → 422 spec.leaseTransi…b44f | 200
PUT leases/fresh apiVersion=coordination.k8s.io/v1 kind=Lease .name=fresh spec.holderIdentity=me →
 201
DELETE leases/lease preconditions.resourceVersion=<$lease.rv1|$lease.rv> → 409 the
 ResourceVers…f0e2 | 200 Success
POST events/event message=m count=1 → 201
PATCH events/event count=2 → 200
POST events/bad involvedObject.namespace=other → 422 involvedObject.n…cc72
# Selectors and pages
POST pods/<l1|l2|l3|l4|l5> .labels.app=l → 5 × 201
PATCH pods/l5 .labels.app=m .labels.five='5' → 200
GET pods?l=<app|app=l|app!=l|app%3D%3Dm|!app|app+in+(l,m)|app+notin+(l)|app=l,five|five,app=m|> →
 200 l1 l2 l3 l4 l5 | 200 l1 l2 l3 l4 | 2 × 200 l5 | 200 | 200 l1 l2 l3 l4 l5 | 200 l5 | 200 | 200
 l5 | 200 l1 l2 l3 l4 l5
GET pods?l=<a+b|app+in|=|app+in+()> → 400 unable to parse…13e3 | 400 unable to parse…1a1f | 400
 found '=', expec…3d69 | 200
GET pods?f=<metadata.name%3Dl1|metadata.name!%3Dl1|spec.nodeName%3D|status.phase%3DPending> → 200
 l1 | 200 l2 l3 l4 l5 | 2 × 200 l1 l2 l3 l4 l5
GET pods?f=<spec.jump%3D1|jump> → 400 field label not…b1c3 | 400 invalid selector…daa7
GET :pods?l=app=m → 200 l5
GET pods?limit=2<|&continue=$list.uid|&continue=$list.uid> → 200 l1 l2 and 3 more | 200 l3 l4 and 1
 more | 200 l5
GET pods?l=app&limit=3 → 200 l1 l2 l3 and more
DELETE pods/l4 → 200 dies=0 .generation=2
GET pods?l=app&limit=3&continue=$list.uid → 200 l4 l5
GET pods?continue=x → 400 invalid continue…693d
# Watches
WATCH <since pods?rv=$l5.rv&l=app=l|list pods?stream&l=app|plain
 pods?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&l=app=m|now pods?l=app=l|zero
 pods?rv=0&l=app=l|none pods?stream&l=app=none&rv=$l5.rv|one pods?f=metadata.name%3Dl3>
SEE <since 2|list 5|plain 1|now 3|zero 3|none 1|one 1> → MODIFIED l4 DELETED l4@2{app:l} | ADDED
 l1@1 l2@1 l3@1 l5@2 BOOKMARK of the initial end | ADDED l5@2 | 2 × ADDED l1@1 l2@1 l3@1 | BOOKMARK
 of the initial end | ADDED l3@1
PATCH pods/l1 .labels.app=<l|m|l> → 200 = | 2 × 200
PATCH pods/l1 .labels=null → 200
STRATEGIC pods/l2 .finalizers=[x/y] → 200 .finalizers.0=x/y
DELETE pods/l2 → 200 dies=0 .generation=2
PATCH pods/l2 .finalizers=null → 200 =
DELETE pods/l3 → 200 dies=0 .generation=2
SEE <since 8|list 8|plain 2|now 8|one 2> → DELETED l1@2{app:l} ADDED l1@3 DELETED l1@4{app:l}
 MODIFIED l2@2 l2@3 DELETED l2{app:l} MODIFIED l3 DELETED l3@2{app:l} | MODIFIED l1@2 l1@3 DELETED
 l1@4{app:l} MODIFIED l2@2 l2@3 DELETED l2{app:l} MODIFIED l3 DELETED l3@2{app:l} | ADDED l1@2
 DELETED l1@3{app:m} | DELETED l1@2{app:l} ADDED l1@3 DELETED l1@4{app:l} MODIFIED l2@2 l2@3 DELETED
 l2{app:l} MODIFIED l3 DELETED l3@2{app:l} | MODIFIED l3 DELETED l3@2{app:l}
nobody GET pods?watch=true → 403 User "nobody" ca…55f1
WATCH old stc?rv=1
SEE old 2 → ERROR 410 too old resource…e5dc closed
# Quotas
POST namespaces/conform2 → 201 .labels.kubernetes.io/metadata.name=conform2
POST conform2:resourcequotas/few spec.hard.pods='1' spec.hard.count/persistentvolumeclaims='0' →
 201
PATCH conform2:resourcequotas/few/status status.hard.pods='1' status.used.pods='0'
 status.hard.count/persistentvolumeclaims='0' status.used.count/persistentvolumeclaims='0' → 200
POST conform2:pods/<q1|q2|q1> → 201 | 2 × 403 exceeded quota:…b060
POST conform2:pods/q1 spec.containers=[] → 422 spec.containers:…5577
POST conform2:pods/<q1|q2>?dryRun=All → 2 × 403 exceeded quota:…b060
POST conform2:pvc/q3 → 403 exceeded quota:…45a5
# Admission
ADMIT → done
POST pods/m .labels.admit=me → 201 .labels.team=1 spec.containers.c.image=i@x
PATCH pods/m .labels.team=<y|null> → 2 × 200 .labels.team=1
STRATEGIC pods/m .labels.b=c spec.containers=[{name:c,image:j}] → 200 .labels.b=c
PATCH pods/m/status .labels.team=y → 200
PATCH pods/m .labels.admit=<null|me> → 200 | 200 .labels.team=1
DELETE pods/m → 200 dies=0 .generation=2
# Namespaces
DELETE namespaces/<default|conform2> → 403 this namespace m…fae8 | 200 status.phase=Terminating
POST conform2:<pods|stc>/q9 → 2 × 403 unable to create…e248
DELETE conform2:pods/q1 → 200 dies=0 .generation=2
PUT namespaces/conform2/finalize spec.finalizers=[] → 200 =
GET namespaces/conform2 → 404
DELETE nodes/conform-n → 200 Success
# The past is gone
GET pods?limit=1 → 200 l1 and 1 more
COMPACT list → done
SEE <brief 1|future 1|later 2> → 2 × closed | ERROR 504 Timeout: Too lar…e304 closed
GET stc?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Miwic3RhcnQiOiJhXHUwMDAwIn0 → 410 The
 provided con…1530 and a token
`;
const conformance = suite('conformance');
conformance('conformance: the embedded API server → answers as the real one did', async () => {
  assert.is(differences(await playEmbedded(RECORDED), RECORDED), '');
});
conformance('conformance: F34: the schema and its CEL rules → as by the real one', async () => {
  assert.equal(await inSim((_, world) => playRules(world)), []);
});
if (TESTING) conformance.run();

// ── Odd objects of every kind that is read ──────────────────────────────────────────────────────
const fuzz = suite('fuzz');
const ODDITIES: readonly unknown[] = [
  ...[undefined, null, '', 'x', 'true', 0, -1, 1e15, true, [], [null], {}, { a: null }, ['x']],
  ...[{ '': '' }, '9'.repeat(400), 'a b', '\u0007', '275760-09-13T00:00:00Z', '{', '100%'],
];
const ODD_TIMES = [undefined, '0001-01-01T00:00:00Z', '9999-12-31T23:59:59Z'];
const OWN_KEYS = Object.values(MARK).slice(0, -5);
/** The same with one place changed, a field or a mark; what the API server types keeps its type. */
function bent(raw: Raw, random: () => number, untyped = /^$/): Raw {
  const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
  const whole = structuredClone(raw) as any;
  const places: [any, string, boolean][] = [];
  const walk = (part: any, free: boolean): void => {
    for (const key of Object.keys(part ?? {})) {
      const isFree = free || untyped.test(key);
      places.push([part, key, isFree]);
      if (typeof part[key] === 'object') walk(part[key], isFree);
    }
  };
  walk(whole, false);
  const dict = pick(['labels', 'annotations']);
  if (random() < 0.3) (whole.metadata[dict] ??= {})[pick(OWN_KEYS)] = String(pick(ODDITIES));
  else {
    const [part, key, isFree] = pick(places.filter(([, k]) => !/^(name|uid|kind)$/.test(k)));
    const kindOf = (value: unknown): string => (Array.isArray(value) ? 'list' : typeof value);
    const isFit = (odd: unknown): boolean =>
      isFree || odd === undefined || (odd !== null && kindOf(odd) === kindOf(part[key]));
    const isTime = /^\d{4}-\d\d-.*Z$/.test(part[key]);
    const odd = pick(isTime && !isFree ? ODD_TIMES : ODDITIES.filter(isFit));
    part[key] = Array.isArray(odd) && !isFree ? [] : odd;
    if (Array.isArray(part) && !isFree) part[key as any] ??= {};
  }
  return whole;
}
const FUZZED = 1000;
/** What the operator makes of it: no exception, and always a word for people. */
function foundOdd(over: Partial<op.Snapshot>): void {
  const { s, p } = settled({ ...snapshot(''), ...over }, {});
  const { conditions } = op.statusOf(s, p, NOW);
  assert.ok(conditions.every((c) => c.status === 'True' || c.status === 'False'));
  assert.ok(conditions.find((c) => c.type === 'Ready')?.message);
  op.remember(s, p, s.desk);
}
/** What is read, and where a snapshot has it. */
const READ: Readonly<Record<string, readonly [keyof op.Snapshot, (raw: Raw) => unknown]>> = {
  pods: ['pods', podOf],
  persistentvolumeclaims: ['claims', claimOf],
  nodes: ['nodes', op.nodeOf],
  persistentvolumes: ['volumes', op.volumeOf],
  controllerrevisions: ['revisions', op.revisionOf],
};
type Shown = Readonly<Record<string, readonly Seen[]>>;
/** What the API server shows of a cluster that is well, loses a pod, and so on. */
const shows: Shown[] = [];
fuzz.before(async () => {
  const story = storyOf(await start(five));
  for (const acts of ['1 s', 'lose; 1 s', 'it fails; 1 s', 'its node is off; 60 s', 'replicas 3']) {
    await enact(story, acts);
    const kinds = [...Object.keys(READ), 'statefulclusters'];
    shows.push(Object.fromEntries(kinds.map((kind) => [kind, seenIn(story.t.sim, kind)])));
  }
  story.t.operator.abort();
});
/** One object of one kind is bent. */
function showOdd(shown: Shown, kind: string, random: () => number): void {
  const odd = Math.floor(random() * (shown[kind]?.length ?? 0));
  const read = Object.entries(READ).map(([plural, [field, project]]) => {
    const objects = (shown[plural] ?? []).map((raw, i) => {
      const seen = plural === kind && i === odd ? bent(raw, random, /^data$/) : raw;
      return [raw.metadata.name, project(seen as Raw)] as const;
    });
    return [field, new Map(objects)];
  });
  const cluster = clusterOf(shown['statefulclusters']?.[0] as unknown as Raw);
  foundOdd({ cluster, ...(Object.fromEntries(read) as Partial<op.Snapshot>) });
}
for (const kind of Object.keys(READ))
  fuzz(`fuzz: F34 F37: ${FUZZED} odd ${kind} → no exception, and a word for people`, () => {
    const random = chance(7);
    for (let i = 0; i < FUZZED; i++) showOdd(shows[i % shows.length] ?? {}, kind, random);
  });
/** Fields of each kind, beside those that are filled in. */
const MORE = `
ordinals: { start: 0 }
serviceName: s
template:
  metadata: { labels: { app: coder }, annotations: { a: b } }
  spec:
    containers: [{ name: c, image: i, env: [{ name: a, value: b }], ports: [] }]
    initContainers: [{ name: i, image: i }]
    volumes: [{ name: v, emptyDir: {} }]
    tolerations: [{ key: a, operator: Exists }]`;
async function postOdd(world: World): Promise<void> {
  const random = chance(11);
  const path = clusterAt('default');
  const { spec, ...whole } = coderCluster();
  const given = { ...whole, spec: { ...spec, ...(loadAllYaml(MORE)[0] as object) } };
  const dry = await order({ world }, 'POST', `${path}?dryRun=All`, given); // Filled in.
  for (let i = 0; i < FUZZED; i++) {
    const odd = bent(bent({ ...whole, spec: dry['spec'] }, random, /./), random, /./);
    const body = { ...odd, metadata: { name: `web${i}` } };
    const { status, body: made } = await world.send({ method: 'POST', path, body });
    assert.ok([201, 422, 400].includes(status));
    const empty = { pods: new Map(), claims: new Map() };
    if (status === 201) foundOdd({ ...empty, cluster: clusterOf(made as Raw) });
  }
}
fuzz(`fuzz: F34: ${FUZZED} odd clusters → refused by the schema, or taken with a word`, () =>
  inSim((_, world) => postOdd(world)),
);
if (TESTING) fuzz.run();

// ── A real kube-apiserver ───────────────────────────────────────────────────────────────────────
const planes = suite('real API server');
planes.after(clearUp);
const assets = findAssets();
if (!assets) planes.before(() => console.log('skipped: no etcd and kube-apiserver here'));
const onPlane = (title: string, play: () => Promise<void>): void => {
  if (assets) planes(`real API server: ${title}`, play);
};
let plane: ControlPlane;
let real: Rig;

/** For the few things that no watch tells of. */
async function reaches(see: () => Promise<number>, wanted: number): Promise<void> {
  const from = performance.now();
  for (let seen = await see(); seen !== wanted; seen = await see()) {
    if (performance.now() - from > 60_000) throw new Error(`not in 60 s: ${seen}, not ${wanted}`);
    await rest(50);
  }
}
async function applyManifest(): Promise<void> {
  const world = realWorld(plane);
  for (const body of manifest()) {
    const { apiVersion, kind, metadata } = body as Raw;
    const where = metadata.namespace ? `/namespaces/${metadata.namespace}` : '';
    const plural = `${kind}s`.toLowerCase().replace(/ys$/, 'ies');
    const path = `/api${apiVersion === 'v1' ? '' : 's'}/${apiVersion}${where}/${plural}`;
    const made = await world.send({ method: 'POST', path: `${path}?fieldValidation=Strict`, body });
    assert.equal([made.status, made.headers['warning']], [201, undefined], kind);
  }
  await clustersAreServed();
}
/** An API server takes a moment for definitions, after their creation and after its start. */
const clustersAreServed = (): Promise<void> => {
  const request = { method: 'GET', path: clusterAt('default') } as const;
  return reaches(async () => (await realWorld(plane).send(request)).status, 200);
};
async function startPlane(): Promise<void> {
  plane = await startRealControlPlane(assets ?? '');
  for (const one of ['etcd', 'apiserver'] as const)
    process.once('exit', () => plane[one].kill('SIGKILL'));
  leftOver.push(() => plane.stop());
}
onPlane('deploy.yaml → every object is taken as it is, without a warning', async () => {
  await startPlane();
  await applyManifest();
});

const versionOf = async (): Promise<string> => {
  const { gitVersion } = await order({ world: realWorld(plane) }, 'GET', '/version');
  return `# kube-apiserver ${gitVersion}`;
};
/** Prints RECORDED anew, with the answers of a real API server. */
async function record(): Promise<number> {
  if (!assets) throw new Error('no etcd and kube-apiserver here: set KUBEBUILDER_ASSETS');
  await startPlane();
  await applyManifest();
  const [, ...rows] = await playRows(sideOf(plane), RECORDED);
  const lines = [await versionOf(), ...rows].map(wrapped);
  await clearUp();
  console.log(lines.join('\n'));
  return 0;
}
onPlane('conformance: the real one → still answers as it was recorded', async () => {
  const version = await versionOf();
  const minor = /^.*v\d+\.\d+/;
  const [was] = minor.exec(RECORDED.trim()) ?? [];
  if (was !== minor.exec(version)?.[0]) return console.log(`not compared: ${version}, not ${was}`);
  const rows = await playRows(sideOf(plane), RECORDED);
  assert.is(differences(rows.slice(1), rowsOf(RECORDED).slice(1).join('\n')), '');
});

const claimNamed = (name: string): string => JSON.stringify({ metadata: { name }, spec: {} });
/** A field → a value that is taken | one that is refused | in these words of the API server. */
const RULES = `
  metadata/name → "${'a'.repeat(52)}" | "${'a'.repeat(53)}" | must be no more than 52 characters
  metadata/name → "a-1" | "a.b" | must be a DNS label
  selector/matchLabels/enge.me~statefulcluster → "coder" | "x" | selector names another cluster
  template/metadata/labels/enge.me~statefulcluster → "coder" | "x" | names another cluster
  template/metadata/labels/app → "coder" | "x" | contradicts selector.matchLabels
  template/metadata/labels/enge.me~identity → - | "x" | labels under enge.me/ are set by
  template/metadata/annotations/enge.me~replace → - | "true" | annotations under enge.me/
  template/spec/restartPolicy → "Always" | "Never" | restartPolicy must be Always
  template/spec/activeDeadlineSeconds → null | 10 | activeDeadlineSeconds is not supported
  template/spec/restartPolicy → null | "OnFailure" | restartPolicy must be Always
  template/spec/future → {"a":1} | - |
  template/metadata/labels → null | "a" | of type object
  template/metadata/labels/team → null | 1 | of type string
  template/metadata/annotations → null | [] | of type object
  template/spec/serviceAccountName → null | {} | of type string
  template/spec/serviceAccount → null | - |
  template/spec/volumes → null | {"name":"a"} | template.spec.volumes
  template/spec/volumes → [{"name":"a"}] | [{"name":"a"},{"name":"a"}] | Duplicate value
  template/spec/initContainers → null | [null] | of type object
  template/spec/tolerations → null | {"key":"a"} | template.spec.tolerations
  template/spec/tolerations → [{}] | ["a"] | of type object
  template/spec/containers → [{"name":"a"}] | null | Required value
  template/spec/containers → [{"name":"a"}] | [{}] | name: Required value
  template/spec/containers/0/image → null | 7 | of type string
  template/spec/containers/0/env → null | "A=b" | of type array
  template/spec/containers/0/env → [{"name":"A"}] | [{"name":"A"},{"name":"A"}] | Duplicate value
  template/spec/containers/0/ports → null | [80] | of type object
  template/spec/containers/0/volumeMounts → null | [{"name":"data"}] | mountPath: Required value
  ordinals → null | {} | start: Required value
  liveness/maxReplacements → null | "x" | or a percentage
  selector/matchExpressions → null | {} | of type array
  selector/matchLabels/enge.me~retired → - | "true" | labels under enge.me/ are set by
  volumeClaimTemplates → null | [null] | of type object
  volumeClaimTemplates/0/metadata/labels → null | - |
  volumeClaimTemplates/0/metadata/annotations → null | - |
  volumeClaimTemplates/0/status → null | - |
  volumeClaimTemplates/1 → ${claimNamed('b')} | ${claimNamed('data')} | must be unique
  volumeClaimTemplates/0/metadata/name → "wal" | "a.b" | must be a DNS label
  volumeClaimTemplates/0/metadata/labels → {"a":"b"} | {"enge.me/retired":"true"} | labels under
  volumeClaimTemplates/0/metadata/annotations → {"a":"b"} | {"enge.me/x":""} | annotations under
  updateStrategy/rollingUpdate → {"maxUnavailable":0,"maxSurge":1} | {"maxUnavailable":0} | both
  updateStrategy/rollingUpdate/partition → "100%" | "101%" | or a percentage from 0% to 100%
  updateStrategy/rollingUpdate/maxUnavailable → 2 | -1 | greater than or equal to 0
  updateStrategy/rollingUpdate/maxSurge → "25%" | "2" | or a percentage from 0% to 100%
  updateStrategy/rollingUpdate/podUpdatePolicy → "Replace" | "X" | Unsupported value
  updateStrategy/type → "OnDelete" | "Never" | Unsupported value
  liveness/maxReplacements → "50%" | "5" | or a percentage from 0% to 100%
  liveness/nodeGoneSeconds → 1 | 0 | greater than or equal to 1
  liveness/maxRestarts → 0 | -1 | greater than or equal to 0
  replacementPolicy → "WhenVolumesLost" | "Never" | Unsupported value
  persistentVolumeClaimRetentionPolicy/whenLost → "Delete" | "Keep" | Unsupported value
  serviceName → "svc" | "Svc.x" | should match
  serviceName → "" | {} | of type string
  serviceName → null | - |
  replicaz → - | 1 | unknown field
  selector → {} | null | Required value`;
/** The example with one field set. */
function withField(at: string, value: unknown): Raw {
  const object: Record<string, any> = coderCluster();
  const ofMeta = at.startsWith('metadata/');
  if (ofMeta) object['spec'].selector = { matchLabels: { app: 'x' } };
  const keys = at.split('/').map((key) => key.replace('~', '/'));
  const last = keys.pop() ?? '';
  keys.reduce((inner, key) => (inner[key] ??= {}), ofMeta ? object : object['spec'])[last] = value;
  return object;
}
/** What comes of each row of RULES; nothing where it is as the row says. */
async function playRules(world: World): Promise<readonly string[]> {
  const path = `${clusterAt('default')}?dryRun=All&fieldValidation=Strict`;
  const one = async (text: string, at: string, value: string, words: string) => {
    if (value === '-') return '';
    const body = withField(at, JSON.parse(value));
    const answer = await world.send({ method: 'POST', path, body });
    const { message = '' } = answer.body as Raw;
    const isRight = words ? answer.status >= 400 && message.includes(words) : answer.status === 201;
    return isRight ? '' : `${text}: ${answer.status} ${message}`;
  };
  const rows = RULES.trim().split('\n');
  const tries = rows.flatMap((text) => {
    const [, at = '', good = '', bad = '', words = ''] =
      /(\S+) → (.*) \| (.*) \| ?(.*)/.exec(text) ?? [];
    return [one(text, at, good, ''), one(text, at, bad, words || 'invalid')];
  });
  return (await Promise.all(tries)).filter(Boolean);
}
onPlane('the schema → each rule refuses in its own words', async () => {
  assert.equal(await playRules(realWorld(plane)), []);
});
onPlane('server-side apply of an image by another manager → only the image changes', async () => {
  const apply = async (container: object, manager: string, more: object = {}): Promise<Raw> => {
    const path = `${clusterAt('default', 'merged')}?fieldManager=${manager}`;
    const contentType = 'application/apply-patch+yaml';
    const spec = { ...more, template: { spec: { containers: [{ name: 'c', ...container }] } } };
    const body = { ...coderCluster(), metadata: { name: 'merged' }, spec };
    const answer = await realWorld(plane).send({ method: 'PATCH', path, contentType, body });
    return answer.body as Raw;
  };
  const first = {
    image: 'c:1',
    env: [{ name: 'A', value: 'a' }],
    ports: [{ containerPort: 53, protocol: 'TCP', name: 'dns' }],
    volumeMounts: [{ name: 'data', mountPath: '/d' }],
  };
  await apply(first, 'first', { selector: { matchLabels: { app: 'merged' } }, replicas: 0 });
  const refused = await apply({ image: 'c:4' }, 'images');
  assert.match(refused['message'], '.spec.template.spec.containers[name="c"].image');
  const env = [{ name: 'B', value: 'b' }];
  const merged = await apply({ image: 'c:4', env }, 'images&force=true');
  const wanted = { name: 'c', ...first, image: 'c:4', env: [...first.env, ...env] };
  assert.equal(merged['spec'].template.spec.containers, [wanted]);
});

async function accountToken(namespace: string, account: string): Promise<string> {
  const path = `${placeOf(namespace, 'serviceaccounts', account)}/token`;
  const asked = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} };
  return ((await order(real, 'POST', path, asked)) as Raw)['status'].token;
}
/** Without a Lease, unless it is the matter: who follows a killed process must not wait for it. */
const ALONE = '--leader-elect=false';
/** A new cluster with all its members Ready. */
async function grow(name: string, replicas: number, zone: string, spec: object): Promise<void> {
  await order(real, 'POST', clusterAt('default'), clusterIn(zone, name, replicas, spec));
  await settles(real, name, replicas);
}
/** A template for that zone, whose one container has these fields beside the usual ones. */
function templateIn(zone: string, container: object): Raw {
  const { template } = clusterIn(zone, 'x', 1)['spec'];
  const containers = [{ ...template.spec.containers[0], ...container }];
  return { template: { spec: { ...template.spec, containers } } };
}
/** Changes the spec; resolves when the cluster is what it says. */
async function change(rig: Rig, name: string, replicas: number, spec: object): Promise<void> {
  const { metadata } = await order(rig, 'PATCH', clusterAt('default', name), { spec });
  const seen = (): string => {
    const { generation = 0 } = clusterNow(rig, name).metadata;
    return generation < metadata.generation ? 'not seen yet' : unsettled(rig, name, replicas);
  };
  await rig.until(`${name} is as changed`, seen);
}
/** The least that were Ready at any time from now on. */
function leastUp(rig: Rig, cluster: string): () => number {
  let least = Infinity;
  const look = (): string => {
    least = Math.min(least, upPods(rig, cluster).length);
    return 'never';
  };
  rig.until('', look).catch(none); // It ends with the test.
  return () => least;
}

onPlane('the example, unchanged → 3 Ready, a claim each', async () => {
  const labels = (node: string) => ({ zone: node.charAt(0) });
  real = await newRig(realWorld(plane), { nodes: ['a0', 'a1', 'a2', 'b0', 'b1', 'b2'], labels });
  await order(real, 'POST', '/api/v1/namespaces', { metadata: { name: 'team' } });
  const user = { token: await accountToken('statefulcluster-system', 'statefulcluster') };
  const file = newDrawer().put('config', configOf(plane.url, user, trusting(plane.ca)));
  real.program = launch([...runArgs(file), '-n', 'default', ALONE], real.ring);
  await order(real, 'POST', clusterAt('default'), coderCluster());
  await settles(real, 'coder', 3);
  const pods = upPods(real, 'coder');
  const labelled = pods.map((o) => [labelOf(o, 'app'), labelOf(o, MARK.cluster)]);
  assert.equal(labelled.flat(), Array(6).fill('coder'));
  const claims = claimsOf(real).map((o) => o.metadata.name);
  assert.is(`${claims}`, `${pods.map((o) => `data-${o.metadata.name}`)}`);
});

onPlane('image, cpu, QoS class, env, bad template → in place, recreated, refused', async () => {
  const name = 'updates';
  await grow(name, 5, 'b', templateIn('b', sizes('100m')));
  const [ids, least] = [identitiesOf(real, name), leastUp(real, name)];
  const fixed = { ...sizes('200m', { cpu: '200m', memory: '1Gi' }), image: 'img:2' };
  for (const [what, container, kept, restarts] of [
    ['an image', { ...sizes('100m'), image: 'img:2' }, 5, 1],
    ['cpu', { ...sizes('200m'), image: 'img:2' }, 5, 1],
    ['another QoS class', fixed, 0, 0],
    ['env', { ...fixed, env: [{ name: 'A', value: '1' }] }, 0, 0],
  ] as const) {
    const before = uidsOf(real, name);
    await change(real, name, 5, templateIn('b', container));
    assert.is(common(uidsOf(real, name), before).length, kept, what);
    assert.equal(livePods(real, name).map(restartsOf), each(restarts), what);
  }
  const kept = uidsOf(real, name);
  const spec = templateIn('b', { image: 'img:2', env: [{ name: 'A B=', value: '1' }] });
  await order(real, 'PATCH', clusterAt('default', name), { spec });
  const stalled = (): string => conditionOf(real, 'Stalled', name)?.message ?? '';
  const words = 'spec.containers[0].env[0].name: Invalid value';
  await real.until('it says why', () => (stalled().includes(words) ? '' : `"${stalled()}"`));
  assert.equal([uidsOf(real, name), identitiesOf(real, name), least()], [kept, ids, 4]);
});
/** An account in `team` with these rights: `group/resource verb,verb`. */
async function newUser(name: string, rights: readonly string[]): Promise<World> {
  const rules = rights.map((right) => {
    const [, group = '', resource, verbs = ''] = /^(enge\.me)?\/?(\S+) (.*)/.exec(right) ?? [];
    return { apiGroups: [group], resources: [resource], verbs: verbs.split(',') };
  });
  const rows = `
POST team:serviceaccounts/${name}
POST team:roles/${name} rules=${JSON.stringify(rules)}
POST team:rolebindings/${name} roleRef={apiGroup:rbac.authorization.k8s.io,kind:Role,name:${name}}
 subjects=[{kind:ServiceAccount,name:${name},namespace:team}]`;
  await setUp(real, rows);
  return realWorld({ ...plane, token: await accountToken('team', name) });
}
/** A row of the recording's language, until the words fit: at first new roles are not known. */
async function says(world: World, wanted: RegExp, row: string): Promise<void> {
  const { request } = understood(newSighted(), row);
  await reaches(async () => {
    const { status, body } = await world.send(request);
    return Number(wanted.test(status < 300 ? 'taken' : `${(body as Raw)['message']}`));
  }, 1);
}
onPlane('who may not create pods, claims, or be an account → refused by the policy', async () => {
  const rights = ['enge.me/statefulclusters create', 'pods create'];
  rights.push('persistentvolumeclaims create', 'serviceaccounts impersonate');
  const users = [0, 1, 2, 3].map((n) => newUser(`user-${n}`, rights.slice(0, n + 1)));
  // So many of the rights, the account that its members have → what it is told.
  for (const [many, account, wanted] of [
    [0, '', /user-0 may not create pods in the namespace team/],
    [1, '', /user-1 may not create persistentvolumeclaims in the namespace team/],
    [2, '', /^taken$/],
    [2, 'default', /^taken$/],
    [2, 'robot', /as the service account robot, which .*user-2 may not impersonate/],
    [3, 'robot', /^taken$/],
  ] as const) {
    const as = account && `spec.template.spec.serviceAccountName=${account}`;
    await says((await users[many]) as World, wanted, `POST team:stc/mine?dryRun=All ${as}`);
  }
});
/** What is tried with a pod or claim of `team`, by whoever may write those but not update the
 *  cluster → what comes of it. Who may do that, too, may do all of it. */
const MARKING = rowsIn`
POST pvc/new .labels.enge~me/statefulcluster=<theirs|''> → refused
POST pvc/new .annotations.enge~me/retired=PodDeleted → taken
POST pods/new .labels={enge.me/statefulcluster:none,enge.me/identity:a} → refused
POST pods/new .labels.app=x → taken
PATCH pvc/theirs .annotations.enge~me/retired=PodDeleted → refused
PATCH pvc/theirs .annotations.a=b → taken
PATCH pvc/theirs .labels=null → refused
PATCH pods/theirs .labels.enge~me/statefulcluster=<null|other> → refused
PATCH pods/theirs .labels.app=null .annotations=null → taken
PATCH pods/theirs/status .annotations.enge~me/replace='true' → refused`;
onPlane('F37: who may not update a cluster → marks no pod or claim as its member', async () => {
  await setUp(real, 'POST team:<pods|pvc>/theirs .labels={enge.me/statefulcluster:theirs,app:x}');
  const rights = ['pods create,patch', 'persistentvolumeclaims create,patch', 'pods/status patch'];
  const writer = await newUser('writer', rights);
  const editor = await newUser('editor', [...rights, 'enge.me/statefulclusters update']);
  const operator = await newUser('operator', [...rights, 'enge.me/statefulclusters/status patch']);
  for (const row of MARKING) {
    const tried = asksOf(row).replace(/ (\S+)/, ' team:$1?dryRun=All');
    for (const one of [editor, operator]) await says(one, /^taken$/, tried);
    await says(writer, row.endsWith('taken') ? /^taken$/ : /writer may not update$/, tried);
  }
});
onPlane('unknown fields in the template → pods; an Event and Ready name them', async () => {
  await grow('typo', 1, 'b', templateIn('b', { livenesProbe: {}, resource: {} }));
  const said = (): string => `${newsOf(real, 'Warned').map((o) => o.message)}`;
  await real.until('it warns', () => (said() ? '' : 'no Event'));
  const unknown = (name: string): string => `unknown field "spec.containers[0].${name}"`;
  assert.is(said(), `${unknown('livenesProbe')}; ${unknown('resource')}`);
  const ready = (): string => `${conditionOf(real, 'Ready', 'typo')?.message}`;
  await real.until('Ready says so', () => (ready().includes('livenesProbe') ? '' : ready()));
});
onPlane('F12: etcd stands still for a second → requests hang, then it goes on', async () => {
  await losesOne(real, 'coder', () => {
    plane.etcd.kill('SIGSTOP');
    return rest(1000).finally(() => plane.etcd.kill('SIGCONT'));
  });
});
onPlane('F11: the API server ends by SIGTERM → the same process goes on', async () => {
  const from = performance.now();
  await plane.restart('SIGTERM');
  assert.ok(performance.now() - from < 30_000, 'the API server did not wait for the watches');
  await clustersAreServed();
  await change(real, 'coder', 4, { replicas: 4 });
});
onPlane('F11: the API server is SIGKILLed → the same process goes on, and ends well', async () => {
  await plane.restart('SIGKILL');
  await clustersAreServed();
  await change(real, 'coder', 3, { replicas: 3 });
  if (real.program) await endsWell(real.program);
});
if (TESTING) planes.run();

// ═══ HARNESS A · EMBEDDED API SERVER · pure ══════════════════════════════════════════════════════
// handle(state, request, now) → answer; nextEvents(state, watch, now) → events. No clock, chance or
// I/O: the same calls on the same seed give the same bytes. `state` is mutated for speed, but a
// stored object never is (a new object per write, structure shared), so it is handed out by
// reference: whoever gets one must not change it. It is held against the recorded answers of a
// real 1.36 kube-apiserver (see Conformance). What differs beyond them is said here. NOT modelled:
// - CEL in CRDs that clients bring; several versions of a CRD; the order of several errors;
// - versions of lists and wrong options of watches; server-side apply, managedFields,
//   generateName, deletion of collections, tables with -o wide;
// - directives of strategic merges, and the order after them;
// - of built-in kinds: unknown fields (kept; the real one drops or refuses them), fields that are
//   printed though they are empty (eventTime: null), OpenAPI schemas, quantities that are none, and
//   validation beyond metadata, pods, claims, Leases, Events and ControllerRevisions (of pods only
//   names, images, mounts, restartPolicy, activeDeadlineSeconds, and requests within limits);
// - the picture of the objects after `may not change fields`; retries of an eviction on a conflict;
// - the watch cache: its older versions outlive a compaction in the real one, and an unknown newer
//   version is waited for there, here it is refused at once;
// - service accounts and their volumes, priority classes, LimitRange, Pod Security, disruption
//   budgets, node capacity on resize, quotas but of object counts, quota status, Event expiry;
// - RBAC (see `denied`), webhooks (see `refuse`), protobuf bodies, pod logs, exec and proxy.
// Stored, but nobody acts on them: statefulsets, RBAC objects, admission policies.

type Rec = Readonly<Record<string, unknown>>;
type Strings = Readonly<Record<string, string | undefined>>;
type Labels = Readonly<Record<string, string>>;
type Birth = Record<'uid' | 'resourceVersion' | 'creationTimestamp', string>;
type Death = { deletionTimestamp?: string; deletionGracePeriodSeconds?: number };
type Marks = { labels?: Labels; annotations?: Labels };
type Links = { finalizers?: readonly string[]; ownerReferences?: readonly Rec[] };
type Called = { name: string; namespace?: string; generation?: number };
type ObjectMeta = Readonly<Called & Birth & Death & Marks & Links>;
/** A stored object: never changed after it was stored. */
interface ApiObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}
type Matches = (object: ApiObject) => boolean;
/** metav1.Status. Inside this room a refusal is thrown as one; handle() catches it. */
type ApiStatus = Rec & { readonly kind: 'Status'; readonly code: number };
/** Stands in for RBAC. `resource` as in RBAC (pods, pods/eviction), * or absent = all. */
type DenyRule = { verb?: string; resource?: string; namespace?: string; user?: string };
/** Lower-case header names. `authorization: Bearer <name>`: the token simply is the user's name. */
type ServerRequest = Readonly<{ method: string; path: string; headers: Labels; body?: unknown }>;
/** `body` is JSON. With `watch` set it is a stream. */
type ServerAnswer = ApiResponse & { readonly watch?: WatchCursor };
type ChangeType = 'ADDED' | 'MODIFIED' | 'DELETED';
type ApiWatchEvent = { type: ChangeType | 'BOOKMARK' | 'ERROR'; object: unknown };
/** One open watch. `ended`: close the stream. `wakeAt`: ask again then in any case. */
type WatchCursor = WatchPlan & WatchPlace & { ended: boolean; wakeAt: number };
type Moments = Record<'epoch' | 'since' | 'endsAt', number>;
type WatchPlan = Readonly<Moments & { call: Call; matches: Matches }>;
type WatchPlace = { next: number; bookmarkAt: number; lagsUntil: number; pending: ApiWatchEvent[] };
type Change = { type: ChangeType; revision: number; object: ApiObject; previous?: ApiObject };
type Objects = Map<string, Map<string, ApiObject>>;
/** Objects by namespace and name, and the event log; `first` counts the entries dropped so far. */
type Store = { objects: Objects; log: Change[]; first: number; dropped: number; gone: boolean };
/** `flags`: g has a generation, r DELETE returns the object, v PUT must carry a resourceVersion. */
type Names = Record<'apiVersion' | 'plural' | 'kind' | 'flags', string> & { namespaced: boolean };
type Aliases = Record<'shortNames' | 'subresources', readonly string[]>;
type ResourceRow = Readonly<Names & Aliases & { crd?: Rec }>;
type Resource = ResourceRow & { readonly group: string; readonly store: Store };
/** `revision` is the global resourceVersion: unchanged means that nothing was written. */
interface ApiState {
  revision: number;
  denied: readonly DenyRule[];
  /** They stand in for webhooks: mutating ones before validation, others after it. */
  mutate?: (verb: 'create' | 'update', plural: string, object: ApiObject) => ApiObject;
  refuse?: (verb: string, plural: string, object: ApiObject) => ApiStatus | undefined;
  readonly resources: Map<string, Resource>;
  /** What a server whose watch cache lags shows to whoever asks for any version (0), until then. */
  old?: { readonly snapshot: ApiSnapshot; readonly until: number };
  readonly seed: number;
  drawn: number;
  epoch: number;
}
/** A backup of etcd; cheap, since objects are shared. */
type ApiSnapshot = { revision: number; stores: readonly (readonly [Resource, Objects])[] };
/** One request, understood. */
type Place = { resource: Resource; namespace: string; name: string; subresource: string };
type Asked = { verb: string; query: Strings; headers: Strings; body: unknown; dryRun: boolean };
type Call = Readonly<Place & Asked & { state: ApiState; now: number; warnings: string[] }>;
/** Events kept per resource; who falls further behind gets 410. */
const eventLogMax = 4096;
const bookmarkEveryMs = 60_000;
/** The real server draws 30–60 min; there is no chance here. */
const watchDefaultSeconds = 2700;
/** apiVersion, plural, kind, C = cluster-scoped, short names, subresources, flags. */
const builtIns = `
v1 namespaces Namespace C ns status,finalize
v1 nodes Node C no status
v1 pods Pod - po status,binding,eviction,resize gr
v1 persistentvolumeclaims PersistentVolumeClaim - pvc status r
v1 persistentvolumes PersistentVolume C pv status r
v1 events Event - ev
v1 services Service - svc status r
v1 configmaps ConfigMap - cm
policy/v1 poddisruptionbudgets PodDisruptionBudget - pdb
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler - hpa
v1 serviceaccounts ServiceAccount - sa - r
v1 resourcequotas ResourceQuota - quota status r
apps/v1 controllerrevisions ControllerRevision
apps/v1 statefulsets StatefulSet - sts status,scale g
coordination.k8s.io/v1 leases Lease - - - v
storage.k8s.io/v1 storageclasses StorageClass C sc - r
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition C crd,crds status g
rbac.authorization.k8s.io/v1 clusterroles ClusterRole C
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding C
rbac.authorization.k8s.io/v1 roles Role
rbac.authorization.k8s.io/v1 rolebindings RoleBinding
admissionregistration.k8s.io/v1 validatingadmissionpolicies ValidatingAdmissionPolicy C - status g
admissionregistration.k8s.io/v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C
`;

// ─── Readers of JSON ─────────────────────────────────────────────────────────────────────────────
const isRec = (value: unknown): value is Rec =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const recOf = (value: unknown): Rec => (isRec(value) ? value : {});
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const recsOf = (value: unknown): readonly Rec[] => listOf(value).map(recOf);
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');
const textsOf = (value: unknown): readonly string[] => listOf(value).map(textOf);
const pathOf = (value: unknown, path: string): unknown =>
  path.split('.').reduce((at: unknown, key) => recOf(at)[key], value);
/** As metav1.Time has it. */
const timeOf = (ms: number): string => `${new Date(ms).toISOString().slice(0, -5)}Z`;
/** The record without these keys, and without undefined ones (JSON has none). */
function without<T extends Rec>(record: T, ...keys: readonly string[]): T {
  const rest: Record<string, unknown> = {};
  for (const key in record)
    if (record[key] !== undefined && !keys.includes(key)) rest[key] = record[key];
  return rest as T;
}
const quantityOf = (value: unknown): number => op.quantity(`${value}`);

// ─── Refusals, in the real server's words ────────────────────────────────────────────────────────
function refusalOf(code: number, reason: string, message: string, details?: Rec): ApiStatus {
  const head = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure' } as const;
  return { ...head, message, reason, ...(details && { details }), code };
}
function refuse(code: number, reason: string, message: string, details?: Rec): never {
  throw refusalOf(code, reason, message, details);
}
const badRequest = (message: string): never => refuse(400, 'BadRequest', message);
const noSuchPath = (): never =>
  refuse(404, 'NotFound', 'the server could not find the requested resource', {});
const inGroup = (word: string, { group }: Resource): string => word + (group && `.${group}`);
const detailsOf = ({ group, plural }: Resource, name: string, more?: Rec): Rec =>
  without({ name: name || undefined, group: group || undefined, kind: plural, ...more });
function notFound(resource: Resource, name: string): never {
  const message = `${inGroup(resource.plural, resource)} "${name}" not found`;
  return refuse(404, 'NotFound', message, detailsOf(resource, name));
}
function conflict({ resource, name }: Call, why: string, kind = resource.plural): never {
  const message = `Operation cannot be fulfilled on ${inGroup(kind, resource)} "${name}": ${why}`;
  return refuse(409, 'Conflict', message, detailsOf(resource, name, { kind }));
}
function forbid(resource: Resource, name: string, why: string, more?: Rec): never {
  const which = inGroup(resource.plural, resource) + (name && ` "${name}"`);
  const message = `${which} is forbidden: ${why}`;
  return refuse(403, 'Forbidden', message, detailsOf(resource, name, more));
}
type FieldError = { reason: string; field: string; message: string };
const fieldError = (field: string, kind: string, words: string, more = ''): FieldError => {
  return { reason: `FieldValue${kind}`, field, message: words + (more && `: ${more}`) };
};
const wrong = (field: string, value: unknown, why: string): FieldError =>
  fieldError(field, 'Invalid', `Invalid value: ${JSON.stringify(value)}`, why);
const missing = (field: string, why = '') => fieldError(field, 'Required', 'Required value', why);
const frozen = (field: string, why: string) => fieldError(field, 'Forbidden', 'Forbidden', why);
/** Nothing if the value is one of those that are known. */
function unsupported(field: string, value: unknown, known: readonly unknown[]): FieldError[] {
  const words = `Unsupported value: ${JSON.stringify(value)}`;
  const values = known.map((one) => JSON.stringify(one)).join(', ');
  const error = fieldError(field, 'NotSupported', words, `supported values: ${values}`);
  return known.includes(value) ? [] : [error];
}
function invalid(group: string, kind: string, name: string, causes: readonly FieldError[]): void {
  if (causes.length === 0) return;
  const each = causes.map((cause) => `${cause.field}: ${cause.message}`);
  const all = each.length === 1 ? each[0] : `[${each.join(', ')}]`;
  const message = `${kind}${group && `.${group}`} "${name}" is invalid: ${all}`;
  const named = { name: name || undefined, group: group || undefined };
  refuse(422, 'Invalid', message, without({ ...named, kind, causes }));
}

// ─── State: resources, stores, the log ───────────────────────────────────────────────────────────
/** `crds`: CustomResourceDefinitions as plain JSON; client-node's loadYaml renames their fields. */
function newApiServer(crds: readonly unknown[], seed = 1, now = 0): ApiState {
  const resources = new Map<string, Resource>();
  const state: ApiState = { revision: 1, denied: [], resources, seed, drawn: 0, epoch: 0 };
  for (const row of builtIns.trim().split('\n')) {
    const [apiVersion = '', plural = '', kind = '', scope, ...more] = row.split(' ');
    const words = (text = '-'): readonly string[] => (text === '-' ? [] : text.split(','));
    const [shortNames, subresources] = [words(more[0]), words(more[1])];
    const names = { apiVersion, plural, kind, namespaced: scope !== 'C', flags: more[2] ?? '' };
    serveResource(state, { ...names, shortNames, subresources });
  }
  const post = (path: string, body: unknown): void => {
    const answer = handle(state, { method: 'POST', path, headers: {}, body }, now);
    if (answer.status !== 201) throw new Error(JSON.stringify(answer.body));
  };
  for (const name of ['default', 'kube-node-lease', 'kube-public', 'kube-system'])
    post('/api/v1/namespaces', { metadata: { name } });
  for (const crd of crds) {
    JSON.stringify(crd, (key, value) => (key === 'rule' ? learnRule(value) : value));
    post(crdsAt, crd);
  }
  return state;
}
const newStore = (objects: Objects, revision: number): Store => {
  return { objects, log: [], first: 0, dropped: revision, gone: false };
};
function serveResource(state: ApiState, row: ResourceRow): void {
  const group = row.apiVersion.includes('/') ? row.apiVersion.split('/')[0]! : '';
  const key = `${group}/${row.plural}`;
  const store = state.resources.get(key)?.store ?? newStore(new Map(), state.revision);
  state.resources.set(key, { ...row, group, store });
}
/** A definition came, changed or went: its storage version is served, or no more. */
function serveCustomResource(call: Call, { spec }: ApiObject, type: ChangeType): void {
  const names = recOf(pathOf(spec, 'names'));
  const [group, plural] = [textOf(pathOf(spec, 'group')), textOf(names['plural'])];
  const served = call.state.resources.get(`${group}/${plural}`);
  if (type === 'DELETED' && served) {
    for (const object of inOrder(served.store.objects, ''))
      commit({ ...call, resource: served }, 'DELETED', object, object);
    served.store.gone = true;
    call.state.resources.delete(`${group}/${plural}`);
  }
  if (type === 'DELETED') return;
  const crd = recOf(recsOf(pathOf(spec, 'versions')).find((version) => version['storage']));
  serveResource(call.state, {
    apiVersion: `${group}/${textOf(crd['name'])}`,
    plural,
    kind: textOf(names['kind']),
    namespaced: pathOf(spec, 'scope') === 'Namespaced',
    shortNames: textsOf(names['shortNames']),
    subresources: Object.keys(recOf(crd['subresources'])),
    flags: 'gv',
    crd,
  });
}
/** Forgets the past: watches and continue tokens of before are answered with 410 Expired. */
function compact(state: ApiState): void {
  for (const { store } of state.resources.values()) {
    dropChanges(store, store.log.length);
    store.dropped = state.revision;
  }
}
function dropChanges(store: Store, count: number): void {
  if (count > 0) store.dropped = store.log[count - 1]!.revision;
  store.first += count;
  store.log = store.log.slice(count);
}
const copyOf = (objects: Objects): Objects =>
  new Map([...objects].map(([namespace, names]) => [namespace, new Map(names)]));
function snapshotState({ revision, resources }: ApiState): ApiSnapshot {
  const copy = (resource: Resource) => [resource, copyOf(resource.store.objects)] as const;
  return { revision, stores: [...resources.values()].map(copy) };
}
/** etcd restored from a backup: objects and revision fall back, every open watch ends. */
function restoreState(state: ApiState, { revision, stores }: ApiSnapshot): void {
  state.revision = revision;
  state.epoch++;
  delete state.old; // Every API server is restarted with it.
  state.resources.clear();
  for (const [resource, objects] of stores) {
    const store = newStore(copyOf(objects), revision);
    state.resources.set(`${resource.group}/${resource.plural}`, { ...resource, store });
  }
}
const storeOf = ({ resources }: ApiState, plural: string): Objects =>
  [...resources.values()].find((one) => one.plural === plural)?.store.objects ?? new Map();
/** For invariant checkers: all objects of a resource in key order. */
const objectsOf = (state: ApiState, plural: string, namespace = ''): readonly ApiObject[] =>
  inOrder(storeOf(state, plural), namespace);
const objectOf = (state: ApiState, plural: string, namespace: string, name: string) =>
  storeOf(state, plural).get(namespace)?.get(name);
/** etcd's key order, where 'a-b/…' comes before 'a/…'. */
function inOrder(objects: Objects, namespace: string): readonly ApiObject[] {
  if (namespace) return sortedIn(objects.get(namespace));
  const spaces = [...objects.keys()].sort((a, b) => (`${a}/` < `${b}/` ? -1 : 1));
  return spaces.flatMap((name) => sortedIn(objects.get(name)));
}
/** Sorted once after each write. */
const sorted = new WeakMap<ReadonlyMap<string, ApiObject>, readonly ApiObject[]>();
function sortedIn(names: ReadonlyMap<string, ApiObject> | undefined): readonly ApiObject[] {
  if (!names) return [];
  const byName = (a: ApiObject, b: ApiObject) => (a.metadata.name < b.metadata.name ? -1 : 1);
  const known = sorted.get(names) ?? [...names.values()].sort(byName);
  sorted.set(names, known);
  return known;
}
/** The one place that writes: stamps the next revision, stores, logs for the watches. */
function commit(call: Call, type: ChangeType, draft: ApiObject, previous?: ApiObject): ApiObject {
  const { state, resource, dryRun } = call;
  if (dryRun) return draft;
  const { store } = resource;
  const revision = ++state.revision;
  const metadata = { ...draft.metadata, resourceVersion: String(revision) };
  const object: ApiObject = { ...draft, metadata };
  const namespace = metadata.namespace ?? '';
  let names = store.objects.get(namespace);
  if (!names) store.objects.set(namespace, (names = new Map()));
  sorted.delete(names);
  if (type === 'DELETED') names.delete(metadata.name);
  else names.set(metadata.name, object);
  store.log.push({ type, revision, object, ...(previous && { previous }) });
  if (store.log.length >= 2 * eventLogMax) dropChanges(store, eventLogMax);
  if (resource.plural === 'customresourcedefinitions') serveCustomResource(call, object, type);
  return object;
}
/** 32 bits that look random: a counter stirred with the seed (splitmix32). */
function draw(state: ApiState): number {
  let bits = (state.seed + Math.imul(++state.drawn, 0x9e3779b9)) | 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x21f0aaad);
  bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
  return (bits ^ (bits >>> 15)) >>> 0;
}
function drawUid(state: ApiState): string {
  const part = (): string => draw(state).toString(16).padStart(8, '0');
  const [a, b, c, d] = [part(), part(), part(), part()];
  return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-a${c.slice(1, 4)}-${c.slice(4)}${d}`;
}

// ─── Requests: path → call → verb ────────────────────────────────────────────────────────────────
const answerOf = (status: number, body: unknown): ServerAnswer => {
  return { status, headers: { 'content-type': 'application/json' }, body };
};
/** An answer tells the API server's time, too: the operator goes by that (F41). */
function handle(state: ApiState, request: ServerRequest, now: number): ServerAnswer {
  let [call, answer]: [Call?, ServerAnswer?] = [];
  try {
    const place = readPath(request.path);
    answer = request.method === 'GET' ? discover(state, place[0]) : undefined;
    if (!answer) {
      call = understand(state, request, place, now);
      authorize(call);
      answer = verbs[call.verb]!(call);
    }
  } catch (error) {
    if (recOf(error)['kind'] !== 'Status') throw error;
    answer = answerOf((error as ApiStatus).code, error);
  }
  const warning = call?.warnings.map((text) => `299 - ${JSON.stringify(text)}`).join(', ');
  const date = new Date(now).toUTCString();
  return { ...answer, headers: { ...answer.headers, date, ...(warning && { warning }) } };
}
type Reading = readonly [Segments, Strings];
function readPath(text: string): Reading {
  const [path = '', search = ''] = text.split('?');
  const query = Object.fromEntries(new URLSearchParams(search));
  return [path.replace(/\/$/, '').split('/').slice(1), query];
}
/** By method: the verb without a name in the path, and with one. */
const verbsOf: Readonly<Record<string, readonly [string, string]>> = {
  GET: ['list', 'get'],
  POST: ['create', 'create'],
  PUT: ['', 'update'],
  PATCH: ['', 'patch'],
  DELETE: ['', 'delete'],
};
type Segments = readonly string[];
/** /api/v1/… or /apis/<group>/<version>/…, then [namespaces/<ns>/]<resource>[/<name>[/<sub>]]. */
function understand(state: ApiState, request: ServerRequest, read: Reading, now: number): Call {
  const { method, headers, body } = request;
  const [all, query] = read;
  const core = all[0] === 'api';
  const group = core ? '' : (all[1] ?? '');
  const [version, place] = core ? ['v1', all.slice(2)] : [all.slice(1, 3).join('/'), all.slice(3)];
  const inside = place[0] === 'namespaces' && state.resources.has(`${group}/${place[2]}`);
  const namespace = inside ? place[1]! : '';
  const [plural = '', name = '', subresource = '', more] = inside ? place.slice(2) : place;
  const resource = state.resources.get(`${group}/${plural}`) ?? noSuchPath();
  const known = subresource === '' || resource.subresources.includes(subresource);
  if (resource.apiVersion !== version || more !== undefined || !known) return noSuchPath();
  const watching = method === 'GET' && /^(1|true)$/.test(query['watch'] ?? '');
  const verb = watching ? 'watch' : (verbsOf[method]?.[name ? 1 : 0] ?? '');
  const nowhere = resource.namespaced && !namespace && verb !== 'list' && verb !== 'watch';
  const why = 'the server does not allow this method on the requested resource';
  if (!verb || nowhere || (verb === 'create' && (name === '') !== (subresource === '')))
    refuse(405, 'MethodNotAllowed', why, {});
  // The options of a DELETE are its body; the query only counts where there is none.
  const asked =
    verb.startsWith('delete') && isRec(body) ? listOf(body['dryRun'])[0] : query['dryRun'];
  const dryRun = asked === 'All';
  if (asked !== undefined && !dryRun) {
    const kind = `${verb.charAt(0).toUpperCase()}${verb.slice(1)}Options`;
    invalid('meta.k8s.io', kind, '', unsupported('dryRun', [asked], ['All']));
  }
  const where = { resource, namespace, name, subresource };
  return { state, now, verb, ...where, query, body, headers, dryRun, warnings: [] };
}
const success = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success' } as const;
const verbs: Readonly<Record<string, (call: Call) => ServerAnswer>> = {
  get: (call) => answerOf(200, shown(call, subjectOf(call, current(call)))),
  list,
  watch,
  create: (call) => answerOf(201, (creations[call.subresource] ?? create)(call)),
  update,
  patch,
  delete: (call) => {
    const old = current(call);
    const details = detailsOf(call.resource, call.name, { uid: old.metadata.uid });
    return answerOf(200, remove(call, old, deleteWish(call)) ?? { ...success, details });
  },
};
/** POSTs that are not the creation of what the path names. */
const creations: Readonly<Record<string, (call: Call) => unknown>> = {
  binding: (call) => {
    checkNamed(call, 'Binding');
    if (!pathOf(call.body, 'target.name')) refuse(500, '', 'target.name: Required value');
    const pod = current(call);
    const taken = pathOf(pod, 'spec.nodeName');
    const why = taken && `is already assigned to node "${taken}"`;
    const late = pod.metadata.deletionTimestamp && 'is being deleted, cannot be assigned to a host';
    if (late || why) conflict(call, `pod ${call.name} ${late || why}`, 'pods/binding');
    const spec = { ...recOf(pod['spec']), nodeName: pathOf(call.body, 'target.name') };
    const status = withCondition(call, pod, 'PodScheduled');
    // Raises no generation, as seen on 1.36.
    commit(call, 'MODIFIED', { ...pod, spec, status }, pod);
    return { ...success, code: 201 };
  },
  eviction: (call) => {
    checkNamed(call, 'Eviction');
    const pod = current(call);
    const wish = deleteWish({ ...call, body: recOf(call.body)['deleteOptions'] });
    checkPreconditions(call, pod, wish);
    const evicted = { reason: 'EvictionByEvictionAPI', message: 'Eviction API: evicting' };
    const status = withCondition(call, pod, 'DisruptionTarget', evicted);
    const marks = !pod.metadata.deletionTimestamp;
    const marked = marks ? commit(call, 'MODIFIED', { ...pod, status }, pod) : pod;
    remove(call, marked, without(wish, 'resourceVersion'));
    return { ...success, code: 201 };
  },
};
function checkNamed({ body, name }: Call, kind: string): void {
  if (pathOf(body, 'metadata.name') !== name)
    badRequest(`name in URL does not match name in ${kind} object`);
}
function withCondition(call: Call, object: ApiObject, type: string, more?: Rec): Rec {
  const times = { lastProbeTime: null, lastTransitionTime: timeOf(call.now) };
  const status = recOf(object['status']);
  const all = recsOf(status['conditions']);
  const before = all.find((one) => one['type'] === type && one['status'] === 'True');
  const kept = before && { lastTransitionTime: before['lastTransitionTime'] };
  const next = without({ type, status: 'True', ...times, ...more, ...kept });
  return { ...status, conditions: [...all.filter((one) => one['type'] !== type), next] };
}
const userOf = ({ headers }: Call): string =>
  headers['authorization']?.replace(/^Bearer /, '') ?? 'system:admin';
function authorize(call: Call): void {
  const { state, resource, namespace, verb, subresource } = call;
  const what = resource.plural + (subresource && `/${subresource}`);
  const asked: Strings = { verb, resource: what, namespace, user: userOf(call) };
  const fits = ([key, value]: [string, string]): boolean => value === '*' || value === asked[key];
  if (!state.denied.some((rule) => Object.entries(rule).every(fits))) return;
  const where = namespace ? `in the namespace "${namespace}"` : 'at the cluster scope';
  const which = `"${what}" in API group "${resource.group}" ${where}`;
  forbid(resource, call.name, `User "${userOf(call)}" cannot ${verb} resource ${which}`);
}
const stored = ({ resource, namespace, name }: Call): ApiObject | undefined =>
  resource.store.objects.get(namespace)?.get(name);
const current = (call: Call): ApiObject => stored(call) ?? notFound(call.resource, call.name);

// ─── Selectors, list and watch ───────────────────────────────────────────────────────────────────
/** `a=b,c!=d,e in (f,g),h notin (i),j,!k` */
function labelSelector(text: string): Matches {
  const terms = text.split(/,(?![^(]*\))/).map((term) => {
    const form = /^(!?)\s*([\w./-]+)\s*(==?|!=|in\b|notin\b)?\s*(.*)$/.exec(term.trim());
    const [, absent, key = '', operator, operand = ''] = form ?? [];
    const unread = 'unable to parse requirement: found';
    if (!form) return badRequest(`found '${term[0]}', expected: !, identifier, or 'end of string'`);
    if (!operator && operand)
      return badRequest(`${unread} '${operand}', expected: in, notin, =, ==, !=, gt, lt`);
    if (operator?.endsWith('in') && !operand) return badRequest(`${unread} '' expected: '('`);
    const values = operand.replace(/[()\s]/g, '').split(',');
    const wanted = !absent && operator !== '!=' && operator !== 'notin';
    return ({ metadata }: ApiObject): boolean => {
      const value = metadata.labels?.[key];
      return (value !== undefined && (!operator || values.includes(value))) === wanted;
    };
  });
  return (object) => terms.every((term) => term(object));
}
/** The field labels of each kind, beside metadata.name and metadata.namespace. */
const fieldLabels: Readonly<Record<string, RegExp>> = {
  pods: /^(spec\.(nodeName|restartPolicy|schedulerName|serviceAccountName)|status\.(phase|podIP))$/,
  events: /^(involvedObject\.\w+|reason|type|reportingComponent)$/,
};
function fieldSelector({ plural }: Resource, text: string): Matches {
  const terms = text.split(',').map((term) => {
    const [, path = '', operator, value] = /^([^=!]+)(==?|!=)(.*)$/.exec(term) ?? [];
    if (!path) return badRequest(`invalid selector: '${term}'; can't understand '${term}'`);
    const known = /^metadata\.(name|namespace)$/.test(path) || fieldLabels[plural]?.test(path);
    if (!known) return badRequest(`field label not supported: ${path}`);
    const wanted = operator !== '!=';
    return (object: ApiObject) => (`${pathOf(object, path) ?? ''}` === value) === wanted;
  });
  return (object) => terms.every((term) => term(object));
}
function matchesOf({ resource, namespace, query }: Call): Matches {
  const { labelSelector: labels, fieldSelector: fields } = query;
  const checks = [
    labels ? labelSelector(labels) : undefined,
    fields ? fieldSelector(resource, fields) : undefined,
    namespace ? (object: ApiObject) => object.metadata.namespace === namespace : undefined,
  ].filter((check) => check !== undefined);
  return (object) => checks.every((check) => check(object));
}
const expired = (message: string): ApiStatus => refusalOf(410, 'Expired', message);
function tooLarge(wanted: number, now: number): ApiStatus {
  const causes = [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }];
  const message = `Timeout: Too large resource version: ${wanted}, current: ${now}`;
  return refusalOf(504, 'Timeout', message, { causes, retryAfterSeconds: 1 });
}
/** The objects as they were at a revision, as etcd's MVCC shows them: the log undone backwards. */
function objectsAt({ resource, namespace }: Call, revision: number): readonly ApiObject[] {
  const { objects, log } = resource.store;
  const later = log.slice(log.findLastIndex((change) => change.revision <= revision) + 1);
  const copy = later.length > 0 ? copyOf(objects) : objects;
  for (const { object, previous } of later.reverse()) {
    const names = copy.get(object.metadata.namespace ?? '')!;
    if (previous) names.set(object.metadata.name, previous);
    else names.delete(object.metadata.name);
  }
  return inOrder(copy, namespace);
}
function list(call: Call): ServerAnswer {
  const { state, query, resource } = call;
  const token = readToken(query['continue']);
  const revision = token?.rv || state.revision;
  if (token && revision < resource.store.dropped)
    throw { ...expired(tokenExpired), metadata: { continue: tokenOf(-1, token.start) } };
  const keyOf = ({ metadata }: ApiObject): string => `${metadata.namespace ?? ''}/${metadata.name}`;
  const found = objectsAt(call, revision).filter(matchesOf(call));
  const rest = token ? found.filter((object) => keyOf(object) > token.start) : found;
  const page = rest.slice(0, Number(query['limit'] ?? 0) || Infinity);
  const left = rest.length - page.length;
  const all = !query['labelSelector'] && !query['fieldSelector'];
  const more = left > 0 && { continue: tokenOf(revision, keyOf(page.at(-1)!)) };
  const counted = left > 0 && all && { remainingItemCount: left };
  const metadata = { resourceVersion: String(revision), ...more, ...counted };
  const table = tableOf(call, page, metadata);
  if (table) return answerOf(200, table);
  const items = resource.crd ? page : page.map((item) => without(item, 'apiVersion', 'kind'));
  const { apiVersion, kind } = resource;
  return answerOf(200, { apiVersion, kind: `${kind}List`, metadata, items });
}
type Token = { rv: number; start: string };
const tokenOf = (rv: number, start: string): string =>
  btoa(JSON.stringify({ v: 'meta.k8s.io/v1', rv, start }));
function readToken(text: string | undefined): Token | undefined {
  try {
    return text ? (JSON.parse(atob(text)) as Token) : undefined;
  } catch {
    const why = 'illegal base64 data at input byte 0';
    return badRequest(`invalid continue token: continue key is not valid: ${why}`);
  }
}
const tokenExpired =
  'The provided continue parameter is too old to display a consistent list result. You can start ' +
  'a new list without the continue parameter, or use the continue token in this response to ' +
  'retrieve the remainder of the results. Continuing with the provided token results in an ' +
  'inconsistent list - objects that were created, modified, or deleted between the time the ' +
  'first chunk was returned and now may show up in the list.';
function watch(call: Call): ServerAnswer {
  const { state, query, now, resource } = call;
  const { store } = resource;
  const asked = Number(query['resourceVersion'] ?? 0);
  const initial = query['sendInitialEvents'] === 'true';
  const bookmarks = query['allowWatchBookmarks'] === 'true';
  const since = initial ? 0 : asked;
  const matches = matchesOf(call);
  const pending: ApiWatchEvent[] = [];
  if (initial && asked > state.revision)
    pending.push({ type: 'ERROR', object: tooLarge(asked, state.revision) });
  else if (since > 0 && since < store.dropped) pending.push(tooOld(since, store));
  const reach = initial && asked > 0 ? (state.old?.snapshot.revision ?? 0) : 0;
  const isOld = query['resourceVersion'] !== undefined && (!asked || asked <= reach);
  const old = isOld && state.old && now < state.old.until ? state.old : undefined;
  if (since === 0 && pending.length === 0) {
    const view = old?.snapshot.stores.find(([{ plural }]) => plural === resource.plural)?.[1];
    for (const object of inOrder(view ?? store.objects, call.namespace))
      if (matches(object)) pending.push({ type: 'ADDED', object: shown(call, object) });
    const annotations = { 'k8s.io/initial-events-end': 'true' };
    const resourceVersion = String(old?.snapshot.revision ?? state.revision);
    if (initial && bookmarks) pending.push(bookmarkOf(call, { annotations, resourceVersion }));
  }
  const from = since || old?.snapshot.revision;
  const seen = from ? store.log.findLastIndex(({ revision }) => revision <= from) + 1 : undefined;
  const next = store.first + (seen ?? store.log.length);
  const endsAt = now + 1000 * Number(query['timeoutSeconds'] ?? watchDefaultSeconds);
  const bookmarkAt = bookmarks ? now + bookmarkEveryMs : Infinity;
  const times = { ended: false, wakeAt: now, bookmarkAt, endsAt, lagsUntil: old?.until ?? 0 };
  const { epoch } = state;
  const cursor = { call, matches, since, pending, next, epoch, ...times };
  return { ...answerOf(200, undefined), watch: cursor };
}
const tooOld = (since: number, { dropped }: Store): ApiWatchEvent => {
  return { type: 'ERROR', object: expired(`too old resource version: ${since} (${dropped})`) };
};
function bookmarkOf({ state, resource }: Call, more?: Rec): ApiWatchEvent {
  const { apiVersion, kind } = resource;
  const metadata = { resourceVersion: String(state.revision), ...more };
  return { type: 'BOOKMARK', object: { apiVersion, kind, metadata } };
}
/** What this watch has not been told yet; cheap when nothing. Sets `ended` and `wakeAt`. */
function nextEvents(state: ApiState, watch: WatchCursor, now: number): ApiWatchEvent[] {
  if (watch.ended) return [];
  const { store } = watch.call.resource;
  const events = watch.pending;
  watch.pending = [];
  const cut = watch.epoch !== state.epoch;
  if (!cut && watch.next < store.first) events.push(tooOld(watch.since, store));
  const failed = events.at(-1)?.type === 'ERROR';
  const lags = now < watch.lagsUntil;
  const news = cut || failed || lags ? [] : store.log.slice(watch.next - store.first);
  for (const change of news) {
    const event = change.revision > watch.since ? told(watch, change, now) : undefined;
    if (event) events.push(event);
  }
  if (!lags) watch.next = store.first + store.log.length;
  watch.ended = cut || failed || store.gone || now >= watch.endsAt;
  if (!watch.ended && now >= watch.bookmarkAt) {
    if (state.revision >= watch.since) events.push(bookmarkOf(watch.call));
    watch.bookmarkAt = now + bookmarkEveryMs;
  }
  watch.wakeAt = Math.min(watch.endsAt, watch.bookmarkAt, lags ? watch.lagsUntil : Infinity);
  return events;
}
/** A change as this watch sees it: entering its selection is ADDED, leaving it DELETED. */
function told(watch: WatchCursor, change: Change, now: number): ApiWatchEvent | undefined {
  const { object, previous, type } = change;
  const is = type !== 'DELETED' && watch.matches(object);
  const was = previous !== undefined && watch.matches(previous);
  if (!is && !was) return undefined;
  const call = { ...watch.call, now };
  if (is) return { type: was ? 'MODIFIED' : 'ADDED', object: shown(call, object) };
  const { resourceVersion } = object.metadata;
  const left = type === 'DELETED' ? object : previous!;
  const gone = { ...left, metadata: { ...left.metadata, resourceVersion } };
  return { type: 'DELETED', object: shown(call, gone) };
}

// ─── Writes: create, update, delete ──────────────────────────────────────────────────────────────
/** The kind in the body must be that of the path; built-in kinds may leave it out. */
function decode({ resource, body }: Call): Rec {
  const { apiVersion, kind, crd } = resource;
  const object = recOf(body);
  const named = { apiVersion, kind, ...object };
  if (crd && !object['kind']) {
    const text = JSON.stringify(object);
    const why = `Object 'Kind' is missing in '${text}' (${text.slice(0, 30)} ...)`;
    badRequest(`the object provided is unrecognized (must be of type ${kind}): ${why}`);
  }
  const wants = 'does not match the expected API version';
  if (crd && named.apiVersion !== apiVersion)
    badRequest(`the API version in the data (${named.apiVersion}) ${wants} (${apiVersion})`);
  if (crd && named.kind !== kind) {
    const why = [wrong('kind', named.kind, `must be ${kind}`)];
    invalid(resource.group, textOf(named.kind), textOf(pathOf(object, 'metadata.name')), why);
  }
  if (named.apiVersion !== apiVersion || named.kind !== kind) {
    const { apiVersion: version, kind: other } = named;
    const scheme = '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"';
    const why = `no kind "${other}" is registered for version "${version}" in scheme ${scheme}`;
    const short = version.split('/').at(-1);
    badRequest(`${other} in version "${short}" cannot be handled as a ${kind}: ${why}`);
  }
  return named;
}
/** In the real order: namespace, defaults, validation (422), webhooks, quota (403), then 409. */
function create(call: Call): ApiObject {
  const { resource } = call;
  const body = decode(call);
  const metadata = newMetadata(call, recOf(body['metadata']));
  const { name } = metadata;
  const keeps = !resource.subresources.includes('status') || resource.plural === 'nodes';
  const given = { ...without(body, keeps ? '' : 'status'), metadata } as unknown as ApiObject;
  const meant = admitted(call, (admissions[resource.plural] ?? admitAny)(call, given));
  const draft = call.state.mutate?.('create', resource.plural, meant) ?? meant;
  validate(call, draft);
  if (resource.namespaced) checkQuota(call, name);
  if (stored({ ...call, name })) {
    const message = `${inGroup(resource.plural, resource)} "${name}" already exists`;
    refuse(409, 'AlreadyExists', message, detailsOf(resource, name));
  }
  return commit(call, 'ADDED', draft);
}
function newMetadata(call: Call, wanted: Rec): ObjectMeta {
  const { state, resource } = call;
  const namespace = resource.namespaced ? call.namespace : undefined;
  checkPlace(call, wanted, namespace);
  if (wanted['resourceVersion'])
    refuse(500, '', 'resourceVersion should not be set on objects to be created');
  const { labels, annotations, finalizers, ownerReferences } = wanted;
  const name = textOf(wanted['name']);
  if (namespace) checkNamespace(call, name);
  const generation = resource.flags.includes('g') ? 1 : undefined;
  const system = { uid: drawUid(state), generation, creationTimestamp: timeOf(call.now) };
  const own = { labels, annotations, finalizers, ownerReferences };
  return without({ name, namespace, ...system, ...own } as Rec) as unknown as ObjectMeta;
}
/** What is written must be what the path names; it need not say so. */
function checkPlace(call: Call, wanted: Rec, namespace = call.namespace): void {
  const { name, namespace: own } = wanted;
  const which = `the name of the object (${name})`;
  const what = 'the namespace of the provided object';
  if (call.name && name && name !== call.name && !call.subresource.match(/binding|eviction/))
    badRequest(`${which} does not match the name on the URL (${call.name})`);
  if (namespace && (own ?? namespace) !== namespace)
    badRequest(`${what} does not match the namespace sent on the request`);
}
function checkNamespace({ state, resource, namespace }: Call, name: string): void {
  const spaces = state.resources.get('/namespaces')!;
  const space = spaces.store.objects.get('')?.get(namespace) ?? notFound(spaces, namespace);
  if (!space.metadata.deletionTimestamp) return;
  const message = `namespace ${namespace} is being terminated`;
  const causes = [{ reason: 'NamespaceTerminating', message, field: 'metadata.namespace' }];
  const where = `in namespace ${namespace} because it is being terminated`;
  forbid(resource, name, `unable to create new content ${where}`, { causes });
}
/** Object counts only; pods that are over, or past their grace, are not charged. */
function checkQuota({ state, resource, namespace, now }: Call, name: string): void {
  const { plural, store } = resource;
  const isOver = ({ metadata, status }: ApiObject): boolean =>
    /Failed|Succeeded/.test(textOf(recOf(status)['phase'])) ||
    Date.parse(metadata.deletionTimestamp ?? '') < now;
  const objects = [...(store.objects.get(namespace)?.values() ?? [])];
  for (const quota of objectsOf(state, 'resourcequotas', namespace))
    for (const key of [`count/${inGroup(plural, resource)}`, plural]) {
      const limit = recOf(pathOf(quota, 'spec.hard'))[key];
      const used = objects.filter((object) => key !== 'pods' || !isOver(object)).length;
      if (limit === undefined || used < quantityOf(limit)) continue;
      const sums = `requested: ${key}=1, used: ${key}=${used}, limited: ${key}=${limit}`;
      forbid(resource, name, `exceeded quota: ${quota.metadata.name}, ${sums}`);
    }
}
function update(call: Call): ServerAnswer {
  const { resource, name, namespace } = call;
  const scale = call.subresource === 'scale';
  const wanted = scale ? recOf(call.body) : decode(call);
  const { resourceVersion, uid } = recOf(wanted['metadata']) as Strings;
  checkPlace(call, recOf(wanted['metadata']));
  const old = stored(call);
  // AllowCreateOnUpdate.
  if (!old && resource.plural === 'leases') return answerOf(201, create(call));
  if (!old) return notFound(resource, name);
  if (!resourceVersion && resource.flags.includes('v') && !scale) {
    const why = wrong('metadata.resourceVersion', 0, 'must be specified for an update');
    invalid(resource.group, resource.plural, name, [why]);
  }
  if (uid && uid !== old.metadata.uid) {
    const key = `Key: /registry/${resource.plural}/${namespace}/${name}, ResourceVersion: 0`;
    const met = `UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`;
    const more = `AdditionalErrorMsg: Precondition failed: ${met}`;
    conflict(call, `StorageError: invalid object, Code: 4, ${key}, ${more}`);
  }
  return answerOf(200, shown(call, subjectOf(call, replace(call, old, wanted))));
}
function patch(call: Call): ServerAnswer {
  const { resource, body, headers } = call;
  const type = (headers['content-type'] ?? '').split(';')[0]!;
  const format = patches[type];
  if (!format) return refuse(415, 'UnsupportedMediaType', '415: Unsupported Media Type');
  if (resource.crd && type.includes('strategic')) {
    const known = ['json-patch+json', 'merge-patch+json', 'apply-patch+yaml'];
    const all = known.map((one) => `application/${one}`).join(', ');
    const message = `an unknown format - accepted media types include: ${all}`;
    refuse(415, 'UnsupportedMediaType', `the body of the request was in ${message}`);
  }
  const [listed, wants] = [Array.isArray(body), type.includes('json-patch')];
  if (listed !== wants) {
    const into = wants ? '[]handlers.jsonPatchOp' : 'map[string]interface {}';
    const found = listed ? 'array' : 'object';
    const why = `cannot unmarshal ${found} into Go value of type ${into}`;
    badRequest(`error decoding patch: json: ${why}`);
  }
  const old = stored(call);
  if (!old) return notFound(resource, call.name);
  const patched = recOf(format(subjectOf(call, old), body));
  checkPlace(call, recOf(patched['metadata']));
  return answerOf(200, shown(call, subjectOf(call, replace(call, old, patched))));
}
/** What a subresource shows: the object itself, or its Scale. */
function subjectOf({ subresource }: Call, object: ApiObject): ApiObject {
  if (subresource !== 'scale') return object;
  const { labels: _, annotations: __, generation: ___, ...metadata } = object.metadata;
  const spec = { replicas: pathOf(object, 'spec.replicas') ?? 0 };
  const { replicas = 0, selector } = recOf(object['status']);
  const kind = { kind: 'Scale', apiVersion: 'autoscaling/v1' };
  return { ...kind, metadata, spec, status: without({ replicas, selector }) };
}
/** Every write to a living object ends here: isolation, checks, generation, the last finalizer. */
function replace(call: Call, old: ApiObject, wanted: Rec): ApiObject {
  const { resource } = call;
  const version = pathOf(wanted, 'metadata.resourceVersion');
  const advice = 'please apply your changes to the latest version and try again';
  if (version && version !== old.metadata.resourceVersion)
    conflict(call, `the object has been modified; ${advice}`);
  const isolated = admitted(call, isolate(call, old, wanted));
  const reshaped = resource.plural === 'pods' && isolated['spec'] !== old['spec'];
  const meant = reshaped ? defaultPod(isolated) : isolated;
  const isWhole = call.subresource === '';
  const draft = (isWhole && call.state.mutate?.('update', resource.plural, meant)) || meant;
  validate(call, draft, old);
  const ours = (object: ApiObject): Rec => without(object, 'metadata', 'status');
  const raises = resource.flags.includes('g') && !same(ours(old), ours(draft));
  const generation = raises ? { generation: (old.metadata.generation ?? 0) + 1 } : {};
  const next = { ...draft, metadata: { ...draft.metadata, ...generation } };
  const { deletionTimestamp, deletionGracePeriodSeconds: grace, finalizers = [] } = next.metadata;
  const held = finalizers.length + listOf(pathOf(next, 'spec.finalizers')).length > 0;
  if (deletionTimestamp && !grace && !held) {
    commit(call, 'DELETED', next, old);
    return next;
  }
  // No change is no write, unless admission put it back: managedFields changed.
  return same(next, old) && same(draft, meant) ? old : commit(call, 'MODIFIED', next, old);
}
/** /status, /scale and /finalize change only their own part, and the object leaves status alone. */
function isolate({ resource, subresource }: Call, old: ApiObject, wanted: Rec): ApiObject {
  const given = recOf(wanted['metadata']) as Partial<ObjectMeta>;
  const { labels, annotations, finalizers, ownerReferences, uid = old.metadata.uid } = given;
  const owners = subresource === 'status' ? old.metadata.ownerReferences : ownerReferences;
  const own = { uid, labels: some(labels), annotations: some(annotations) };
  const links = { finalizers: some(finalizers), ownerReferences: some(owners) };
  const metadata = without({ ...old.metadata, ...own, ...links } as Rec) as unknown as ObjectMeta;
  const { status } = wanted;
  if (subresource === 'scale') {
    return { ...old, spec: { ...recOf(old['spec']), replicas: pathOf(wanted, 'spec.replicas') } };
  }
  if (subresource === 'resize') return { ...old, spec: resized(old['spec'], wanted['spec']) };
  if (subresource === 'finalize')
    return { ...old, spec: without({ finalizers: some(pathOf(wanted, 'spec.finalizers')) }) };
  if (subresource === 'status')
    return without({ ...old, metadata: resource.crd ? old.metadata : metadata, status });
  const kept = resource.subresources.includes('status') ? old['status'] : status;
  const { apiVersion, kind } = old;
  return without({ ...wanted, apiVersion, kind, metadata, status: kept });
}
/** The resources of containers that are there; whatever else a resize says is not heard. */
function resized(before: unknown, wanted: unknown): Rec {
  const lists = ['containers', 'initContainers'].filter((field) => recOf(before)[field]);
  const one = (field: string): readonly Rec[] =>
    recsOf(recOf(before)[field]).map((item) => {
      const same = recsOf(recOf(wanted)[field]).find((other) => other['name'] === item['name']);
      return same ? { ...item, resources: same['resources'] } : item;
    });
  return { ...recOf(before), ...Object.fromEntries(lists.map((field) => [field, one(field)])) };
}
/** Undefined for an empty map or list: Go leaves those out. */
const some = (value: unknown): unknown => (Object.keys(value ?? {}).length > 0 ? value : undefined);
type Wish = Partial<Record<'uid' | 'resourceVersion' | 'propagation', string>> & { grace?: number };
/** DeleteOptions from the body, else from the query. */
function deleteWish({ body, query }: Call): Wish {
  const { preconditions, ...options } = (isRec(body) ? body : query) as Rec;
  const { uid, resourceVersion } = recOf(preconditions);
  const { gracePeriodSeconds: seconds, propagationPolicy: propagation } = options;
  const grace = seconds === undefined || seconds === null ? undefined : Number(seconds);
  const policies = ['Foreground', 'Background', 'Orphan', 'nil'];
  const why = unsupported('propagationPolicy', propagation, policies);
  if (propagation) invalid('meta.k8s.io', 'DeleteOptions', '', why);
  return without({ uid, resourceVersion, propagation, grace }) as Wish;
}
function checkPreconditions(call: Call, { metadata }: ApiObject, wish: Wish): void {
  const check = (what: string, wanted: string | undefined, real: string, guess: string): void => {
    if (!wanted || wanted === real) return;
    const text = `the ${what} in the precondition (${wanted}) does not match the ${what} in record`;
    conflict(call, `${text} (${real}). The object might have been ${guess}`, call.resource.kind);
  };
  check('UID', wish.uid, metadata.uid, 'deleted and then recreated');
  check('ResourceVersion', wish.resourceVersion, metadata.resourceVersion, 'modified');
}
/** rest.BeforeDelete and Store.Delete: what is left to show; undefined = a Status is answered. */
function remove(call: Call, old: ApiObject, wish: Wish): ApiObject | undefined {
  const { resource, now } = call;
  const { metadata } = old;
  checkPreconditions(call, old, wish);
  askHooks(call, old);
  if (resource.plural === 'namespaces') return removeNamespace(call, old);
  const first = metadata.deletionTimestamp === undefined;
  const granted = metadata.deletionGracePeriodSeconds ?? 0;
  // A second one may only shorten.
  if (granted > 0 && (wish.grace ?? granted) >= granted) return old;
  const grace = first ? podGrace(resource, old, wish.grace) : granted > 0 ? wish.grace : undefined;
  const finalizers = cascade(metadata.finalizers ?? [], wish.propagation);
  const began = Date.parse(metadata.deletionTimestamp ?? timeOf(now)) - 1000 * granted;
  const deletion = {
    deletionTimestamp: timeOf(began + 1000 * (grace ?? 0)),
    deletionGracePeriodSeconds: grace ?? 0,
    generation: metadata.generation && metadata.generation + (first ? 1 : 0),
    finalizers: some(finalizers),
  };
  const marked = without({ ...metadata, ...deletion } as Rec) as unknown as ObjectMeta;
  const writes = (grace !== undefined || finalizers.length > 0) && !same(marked, metadata);
  const left = writes ? commit(call, 'MODIFIED', { ...old, metadata: marked }, old) : old;
  if (finalizers.length > 0 || (grace ?? 0) > 0) return left;
  const gone = commit(call, 'DELETED', left, left);
  return resource.flags.includes('r') ? gone : undefined;
}
/** podStrategy.CheckGracefulDelete: only pods have a grace, and what no kubelet holds has none. */
function podGrace({ plural }: Resource, pod: ApiObject, wanted?: number): number | undefined {
  if (plural !== 'pods') return undefined;
  const isOver = /Failed|Succeeded/.test(textOf(pathOf(pod, 'status.phase')));
  if (isOver || !pathOf(pod, 'spec.nodeName')) return 0;
  const period = wanted ?? Number(pathOf(pod, 'spec.terminationGracePeriodSeconds'));
  return period < 0 ? 1 : period;
}
/** The finalizers after a propagationPolicy; without one they stay as they are. */
function cascade(finalizers: readonly string[], policy: string | undefined): readonly string[] {
  const marks: Strings = { Foreground: 'foregroundDeletion', Orphan: 'orphan' };
  if (!policy) return finalizers;
  const others = finalizers.filter((one) => !Object.values(marks).includes(one));
  return marks[policy] ? [...others, marks[policy]] : others;
}
function removeNamespace(call: Call, old: ApiObject): ApiObject {
  if (['default', 'kube-system', 'kube-public'].includes(call.name))
    forbid(call.resource, call.name, 'this namespace may not be deleted');
  if (old.metadata.deletionTimestamp) return old;
  const metadata = { ...old.metadata, deletionTimestamp: timeOf(call.now) };
  return commit(call, 'MODIFIED', { ...old, metadata, status: { phase: 'Terminating' } }, old);
}

// ─── Patch formats ───────────────────────────────────────────────────────────────────────────────
type Patch = (old: unknown, patch: unknown) => unknown;
const patches: Readonly<Record<string, Patch>> = {
  'application/json-patch+json': jsonPatch,
  'application/merge-patch+json': mergePatch,
  'application/strategic-merge-patch+json': (old, patch) => strategicPatch(old, patch),
};
/** RFC 7386. */
function mergePatch(old: unknown, patch: unknown): unknown {
  if (!isRec(patch)) return patch;
  const merged: Record<string, unknown> = { ...recOf(old) };
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete merged[key];
    else merged[key] = mergePatch(merged[key], value);
  return merged;
}
/** RFC 6902 but copy and move; whatever fails has one answer, as in the real server. */
function jsonPatch(old: unknown, patch: unknown): unknown {
  const why = 'the server rejected our request due to an error in our request';
  const edit = (at: unknown, path: readonly string[], op: unknown, value: unknown): unknown => {
    const [key, ...rest] = path;
    if (key === undefined)
      return op !== 'test' || same(at, value) ? value : refuse(422, 'Invalid', why, {});
    const list = Array.isArray(at) ? (at as unknown[]) : undefined;
    const index = key === '-' ? list?.length : Number(key);
    const inner = list ? list[index!] : recOf(at)[key];
    const adds = op === 'add' && rest.length === 0 && (!list || index! <= list.length);
    if (at === null || typeof at !== 'object' || (inner === undefined && !adds))
      return refuse(422, 'Invalid', why, {});
    if (op === 'remove' && rest.length === 0)
      return list ? list.toSpliced(index!, 1) : without(recOf(at), key);
    const next = edit(inner, rest, op, value);
    if (!list) return { ...recOf(at), [key]: next };
    return list.toSpliced(index!, adds ? 0 : 1, next);
  };
  return recsOf(patch).reduce((at: unknown, { op, path, value }) => {
    const keys = textOf(path).split('/').slice(1);
    const plain = keys.map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
    const known = /^(test|add|remove|replace)$/.test(textOf(op));
    return known ? edit(at, plain, op, value) : refuse(422, 'Invalid', why, {});
  }, old);
}
/** patchMergeKey by field; '' = a set of scalars. Other lists are replaced whole, as upstream. */
const mergeKeys: Readonly<Record<string, readonly string[]>> = {
  ...{ containers: ['name'], initContainers: ['name'], volumes: ['name'], env: ['name'] },
  ...{ volumeMounts: ['mountPath'], ports: ['containerPort', 'port'], conditions: ['type'] },
  ...{ ownerReferences: ['uid'], finalizers: [''] },
};
/** Strategic merge without $directives: maps as in mergePatch, known lists by key. */
function strategicPatch(old: unknown, patch: unknown, field = ''): unknown {
  if (Array.isArray(patch)) return mergeList(listOf(old), patch, field);
  if (!isRec(patch)) return patch;
  const merged: Record<string, unknown> = { ...recOf(old) };
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete merged[key];
    else if (!key.startsWith('$')) merged[key] = strategicPatch(merged[key], value, key);
  return merged;
}
function mergeList(old: readonly unknown[], patch: readonly unknown[], field: string): unknown {
  const has = (key: string): boolean => patch.some((item) => recOf(item)[key] !== undefined);
  if (mergeKeys[field] && patch.length === 0) return old;
  const key = mergeKeys[field]?.find((one) => one === '' || has(one));
  if (key === undefined) return patch;
  if (key === '') return [...new Set([...old, ...patch])];
  const merged = [...old];
  const added: unknown[] = [];
  for (const item of recsOf(patch)) {
    const index = merged.findIndex((one) => recOf(one)[key] === item[key]);
    if (index < 0) added.push(strategicPatch({}, item));
    else merged[index] = strategicPatch(merged[index], item);
  }
  return [...added, ...merged]; // New ones first, as the real server does.
}

// ─── Admission and validation of built-in kinds ──────────────────────────────────────────────────
type Admission = (call: Call, object: ApiObject) => ApiObject;
const container = {
  terminationMessagePath: '/dev/termination-log',
  terminationMessagePolicy: 'File',
  resources: {},
  'ports?': [{ protocol: 'TCP' }],
};
const file = { defaultMode: 420 };
const volume = { 'configMap?': file, 'secret?': file, 'downwardAPI?': file, 'projected?': file };
/** Defaults, as schemaFrom() reads them. Pods have more, see defaultPod. */
const defaultsOf: Readonly<Record<string, Rec>> = {
  pods: {
    restartPolicy: 'Always',
    terminationGracePeriodSeconds: 30,
    dnsPolicy: 'ClusterFirst',
    securityContext: {},
    schedulerName: 'default-scheduler',
    priority: 0,
    enableServiceLinks: true,
    preemptionPolicy: 'PreemptLowerPriority',
    'containers?': [container],
    'initContainers?': [container],
    'volumes?': [volume],
  },
  namespaces: { spec: { finalizers: ['kubernetes'] }, status: { phase: 'Active' } },
  persistentvolumeclaims: { spec: { volumeMode: 'Filesystem' }, status: { phase: 'Pending' } },
  persistentvolumes: {
    spec: { persistentVolumeReclaimPolicy: 'Retain', volumeMode: 'Filesystem' },
    status: { phase: 'Pending' },
  },
  resourcequotas: { status: {} },
  services: { spec: { type: 'ClusterIP', sessionAffinity: 'None' }, status: { loadBalancer: {} } },
  storageclasses: { reclaimPolicy: 'Delete', volumeBindingMode: 'Immediate' },
};
/** Such defaults as a schema. `?` = only where the field is there, and [x] there = each item. */
function schemaFrom(defaults: unknown): Rec {
  const properties = Object.entries(recOf(defaults)).map(([field, value]): [string, Rec] => {
    if (!field.endsWith('?'))
      return [field, { ...schemaFrom(value), default: isRec(value) ? {} : value }];
    const inner = Array.isArray(value) ? { items: schemaFrom(value[0]) } : schemaFrom(value);
    return [field.slice(0, -1), inner];
  });
  return { properties: Object.fromEntries(properties) };
}
const filled = (defaults: Rec, object: Rec): Rec =>
  conform(schemaFrom(defaults), object, '', []) as Rec;
const admitAny: Admission = ({ resource }, object) =>
  filled(defaultsOf[resource.plural] ?? {}, object) as ApiObject;
const admissions: Readonly<Record<string, Admission>> = {
  pods: (_, pod) => {
    const { spec, ...rest } = defaultPod(pod);
    return { ...rest, spec, status: { phase: 'Pending', qosClass: qosOf(spec) } } as ApiObject;
  },
  namespaces: (call, space) => {
    const labels = { ...space.metadata.labels, 'kubernetes.io/metadata.name': space.metadata.name };
    return admitAny(call, { ...space, metadata: { ...space.metadata, labels } });
  },
  // StorageObjectInUseProtection, DefaultStorageClass.
  persistentvolumeclaims: (call, claim) => {
    const key = 'storageclass.kubernetes.io/is-default-class';
    const isDefault: Matches = ({ metadata }) => metadata.annotations?.[key] === 'true';
    const storageClassName = objectsOf(call.state, 'storageclasses').find(isDefault)?.metadata.name;
    const finalizers = [...(claim.metadata.finalizers ?? []), 'kubernetes.io/pvc-protection'];
    const spec = without({ storageClassName, ...recOf(claim['spec']) });
    return admitAny(call, { ...claim, spec, metadata: { ...claim.metadata, finalizers } });
  },
  persistentvolumes: (call, volume) => {
    const finalizers = [...(volume.metadata.finalizers ?? []), 'kubernetes.io/pv-protection'];
    const status = { phase: 'Pending', lastPhaseTransitionTime: timeOf(call.now) };
    return admitAny(call, { ...volume, metadata: { ...volume.metadata, finalizers }, status });
  },
  // TaintNodesByCondition: tainted until the node controller has seen it Ready.
  nodes: (_, given) => {
    const node = filled({ status: { daemonEndpoints: { kubeletEndpoint: { Port: 0 } } } }, given);
    const taint = { key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' };
    const others = recsOf(pathOf(node, 'spec.taints')).filter((one) => one['key'] !== taint.key);
    return { ...given, ...node, spec: { ...recOf(node['spec']), taints: [...others, taint] } };
  },
  customresourcedefinitions: (call, crd) => {
    const seen = { status: 'True', reason: 'NoConflicts', lastTransitionTime: timeOf(call.now) };
    const conditions = ['NamesAccepted', 'Established'].map((type) => ({ type, ...seen }));
    return { ...crd, status: { conditions, acceptedNames: pathOf(crd, 'spec.names') } };
  },
};
/** Decoding and DefaultTolerationSeconds, on every write of a pod. */
function defaultPod(pod: ApiObject): ApiObject {
  const given = recOf(pod['spec']);
  const { serviceAccountName: serviceAccount } = given;
  const fields = ['containers', 'initContainers'].filter((field) => given[field]);
  const lists = fields.map((field) => [field, recsOf(given[field]).map(defaultContainer)]);
  const volumes = recsOf(given['volumes']).map((one) =>
    one['name'] && !some(without(one, 'name')) ? { ...one, emptyDir: {} } : one,
  );
  const tolerations = defaultTolerations(recsOf(given['tolerations']));
  const grace = given['terminationGracePeriodSeconds'];
  const lasting = { serviceAccount, terminationGracePeriodSeconds: Number(grace) < 0 ? 1 : grace };
  const computed = { ...lasting, tolerations, volumes: given['volumes'] && volumes };
  const spec = without({ ...given, ...Object.fromEntries(lists), ...computed });
  return { ...pod, spec: filled(defaultsOf['pods']!, spec) };
}
function defaultContainer(one: Rec): Rec {
  const { limits, requests } = recOf(one['resources']);
  const asked = some({ ...recOf(limits), ...recOf(requests) });
  const untagged = /(^|\/)[^:/@]+$|:latest$/.test(textOf(one['image']));
  const imagePullPolicy = one['imagePullPolicy'] ?? (untagged ? 'Always' : 'IfNotPresent');
  const resources = without({ ...recOf(one['resources']), requests: asked });
  return { ...one, imagePullPolicy, resources };
}
function defaultTolerations(own: readonly Rec[]): readonly Rec[] {
  const keys = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'];
  const covers = (one: Rec, key: string): boolean =>
    (!one['key'] || one['key'] === key) && (!one['effect'] || one['effect'] === 'NoExecute');
  const added = keys.filter((key) => !own.some((one) => covers(one, key)));
  const more = { operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 };
  return [...own, ...added.map((key) => ({ key, ...more }))];
}
function qosOf(spec: unknown): string {
  const all = ['containers', 'initContainers'].flatMap((field) => recsOf(recOf(spec)[field]));
  const resources = all.map((one) => recOf(one['resources']));
  if (!resources.some((one) => some(one['limits']) || some(one['requests']))) return 'BestEffort';
  const amount = (list: unknown, key: string): number => quantityOf(recOf(list)[key]);
  const isFull = ({ limits, requests }: Rec): boolean =>
    ['cpu', 'memory'].every((key) => amount(limits, key) === amount(requests, key));
  return resources.every(isFull) ? 'Guaranteed' : 'Burstable';
}
function askHooks({ state, verb, resource }: Call, object: ApiObject): void {
  const refused = state.refuse?.(verb, resource.plural, object);
  if (refused) throw refused;
}
const checks: Readonly<
  Record<string, (call: Call, object: ApiObject, old?: ApiObject) => FieldError[]>
> = {
  pods: (call, pod, old) => (old ? checkPodUpdate(call, pod, old) : checkPod(pod)),
  persistentvolumeclaims: checkClaim,
  controllerrevisions: (_, revision, old) => {
    const { data } = revision;
    const errors = data === undefined ? [missing('data', 'data is mandatory')] : [];
    // The bytes are compared, after a patch wrote them as Go does: with sorted keys.
    if (old && JSON.stringify(old['data']) !== json(data))
      errors.push(wrong('data', data, 'field is immutable'));
    return [...errors, ...tooLow(revision, 'revision', 0)];
  },
  leases: (_, lease) => [
    ...tooLow(lease, 'spec.leaseDurationSeconds', 1),
    ...tooLow(lease, 'spec.leaseTransitions', 0),
  ],
  events: ({ namespace }, event) => {
    const about = pathOf(event, 'involvedObject.namespace');
    const why = 'does not match event.namespace';
    return about === namespace ? [] : [wrong('involvedObject.namespace', about, why)];
  },
};
function tooLow(object: ApiObject, field: string, least: 0 | 1): FieldError[] {
  const value = pathOf(object, field);
  const why = least === 1 ? 'must be greater than 0' : 'must be greater than or equal to 0';
  return typeof value === 'number' && value < least ? [wrong(field, value, why)] : [];
}
const notChecked =
  'some validation rules were not checked because the object was invalid; correct the existing ' +
  'errors to complete validation';
const blocksRules = ({ reason }: FieldError): boolean =>
  /(Required|TooLong|TooMany|TypeInvalid|NotSupported)$/.test(reason);
function validate(call: Call, object: ApiObject, old?: ApiObject): void {
  const { group, kind, plural, crd } = call.resource;
  const errors = checkMetadata(object.metadata, old?.metadata);
  if (crd) checkValue(schemaOf(call.resource), object, old, '', errors);
  if (crd && errors.some(blocksRules))
    errors.push(fieldError('<nil>', 'Invalid', 'Invalid value: null', notChecked));
  const replicas = pathOf(object, 'spec.replicas');
  if (crd && call.resource.subresources.includes('scale') && Number(replicas) < 0)
    errors.push(wrong('.spec.replicas', replicas, 'should be a non-negative integer'));
  errors.push(...(checks[plural]?.(call, object, old) ?? []));
  invalid(group, kind, object.metadata.name, errors);
  askHooks(call, object);
}
const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const labelKey = /^([a-z0-9.-]+\/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$/;
const labelValue = /^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?$/;
const edges = 'and must start and end with an alphanumeric character (e.g. ';
const nameWords =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or " +
  `'.', ${edges}'example.com', regex used for validation is ` +
  "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const keyWords =
  `name part must consist of alphanumeric characters, '-', '_' or '.', ${edges}'MyName',  or ` +
  "'my.name',  or '123-abc', regex used for validation is " +
  "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const valueWords =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', " +
  `${edges}'MyValue',  or 'my_value',  or '12345', regex used for validation is ` +
  "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
function checkMetadata(metadata: ObjectMeta, old?: ObjectMeta): FieldError[] {
  const { name, uid, labels, annotations, finalizers = [], ownerReferences = [] } = metadata;
  const errors: FieldError[] = [];
  if (!name) errors.push(missing('metadata.name', 'name or generateName is required'));
  else if (!old && name.length > 253)
    errors.push(wrong('metadata.name', name, 'must be no more than 253 bytes'));
  else if (!old && !subdomain.test(name) && !name.includes(':'))
    errors.push(wrong('metadata.name', name, nameWords));
  if (old && uid !== old.uid) errors.push(wrong('metadata.uid', uid, 'field is immutable'));
  for (const [key, value] of labels === old?.labels ? [] : Object.entries(labels ?? {})) {
    if (!labelKey.test(key)) errors.push(wrong('metadata.labels', key, keyWords));
    if (!labelValue.test(value)) errors.push(wrong('metadata.labels', value, valueWords));
  }
  for (const key in annotations === old?.annotations ? {} : annotations)
    if (!labelKey.test(key)) errors.push(wrong('metadata.annotations', key, keyWords));
  for (const owner of ownerReferences)
    for (const key of ['apiVersion', 'kind', 'name', 'uid'])
      if (!owner[key])
        errors.push(wrong(`metadata.ownerReferences.${key}`, '', 'must not be empty'));
  const added =
    old?.deletionTimestamp && finalizers.filter((one) => !old.finalizers?.includes(one));
  if (added && added.length > 0) {
    const found = `found new finalizers []string{${added.map((one) => `"${one}"`).join(', ')}}`;
    const why = `no new finalizers can be added if the object is being deleted, ${found}`;
    errors.push(frozen('metadata.finalizers', why));
  }
  return errors;
}
function checkPod({ spec }: ApiObject): FieldError[] {
  const names = recsOf(pathOf(spec, 'volumes')).map((one) => one['name']);
  const seen = new Set<unknown>();
  const errors: FieldError[] = [];
  const limit = Number(pathOf(spec, 'activeDeadlineSeconds') ?? 1);
  if (limit < 1 || limit >= 2 ** 31) {
    const why = 'must be between 1 and 2147483647, inclusive';
    errors.push(wrong('spec.activeDeadlineSeconds', limit, why));
  }
  if (listOf(pathOf(spec, 'containers')).length === 0) errors.push(missing('spec.containers'));
  for (const field of ['initContainers', 'containers'])
    for (const [index, one] of recsOf(pathOf(spec, field)).entries()) {
      const { name, image, volumeMounts } = one;
      const at = `spec.${field}[${index}]`;
      errors.push(...checkResources(`${at}.resources.requests`, recOf(one['resources'])));
      if (!name) errors.push(missing(`${at}.name`));
      else if (seen.has(name))
        errors.push(fieldError(`${at}.name`, 'Duplicate', `Duplicate value: "${name}"`));
      if (!image) errors.push(missing(`${at}.image`));
      seen.add(name);
      for (const [i, { name: mount }] of recsOf(volumeMounts).entries()) {
        const where = `${at}.volumeMounts[${i}].name`;
        if (!names.includes(mount))
          errors.push(fieldError(where, 'NotFound', `Not found: "${mount}"`));
      }
    }
  const policy = pathOf(spec, 'restartPolicy');
  const policies = ['Always', 'OnFailure', 'Never'];
  return [...errors, ...unsupported('spec.restartPolicy', policy, policies)];
}
function checkResources(field: string, { requests, limits }: Rec): FieldError[] {
  return Object.entries(recOf(limits)).flatMap(([what, limit]) => {
    const asked = recOf(requests)[what];
    const why = `must be less than or equal to ${what} limit of ${limit}`;
    return quantityOf(asked) > quantityOf(limit) ? [wrong(field, `${asked}`, why)] : [];
  });
}
const podImmutable =
  'pod updates may not change fields other than `spec.containers[*].image`,' +
  '`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only ' +
  'additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set ' +
  'to 1 if it was previously negative)';
/** A living pod changes by images and added tolerations; by /resize in cpu and memory. */
function checkPodUpdate({ subresource }: Call, pod: ApiObject, old: ApiObject): FieldError[] {
  if (pod['spec'] === old['spec']) return [];
  const [spec, before] = [recOf(pod['spec']), recOf(old['spec'])];
  const errors = checkPod(pod);
  if (listOf(spec['containers']).length !== listOf(before['containers']).length)
    errors.push(frozen('spec.containers', 'pod updates may not add or remove containers'));
  if (errors.length > 0) return errors;
  const resize = subresource === 'resize';
  const closed = (one: Rec): Rec => {
    const strip = (field: string): readonly Rec[] =>
      recsOf(one[field]).map((item) => without(item, resize ? 'resources' : 'image'));
    const open = resize ? [] : ['tolerations', 'activeDeadlineSeconds'];
    const lists = { containers: strip('containers'), initContainers: strip('initContainers') };
    return { ...without(one, ...open), ...lists };
  };
  const [now, then] = [listOf(spec['tolerations']), listOf(before['tolerations'])];
  const lasting = (one: unknown): Rec => without(recOf(one), 'tolerationSeconds');
  const grown = then.every((one) => now.some((other) => same(lasting(one), lasting(other))));
  if (!grown || !same(closed(spec), closed(before)))
    return [frozen('spec', resize ? 'only cpu and memory resources are mutable' : podImmutable)];
  const qos = pathOf(old, 'status.qosClass');
  const why = 'Pod QOS Class may not change as a result of resizing';
  return resize && qosOf(spec) !== qos ? [wrong('spec', qos, why)] : [];
}
const claimImmutable =
  'spec is immutable after creation except resources.requests and volumeAttributesClassName for ' +
  'bound claims';
const claimShrinks = 'field can not be less than status.capacity';
const claimFixed =
  'only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc ' +
  'must support resize';
const accessModes = ['ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOnce', 'ReadWriteOncePod'];
function checkClaim({ resource, state }: Call, claim: ApiObject, old?: ApiObject): FieldError[] {
  const [spec, before] = [recOf(claim['spec']), recOf(old?.['spec'])];
  const sizeOf = (one: Rec): number => quantityOf(pathOf(one, 'resources.requests.storage'));
  const [size, had] = [sizeOf(spec), sizeOf(before)];
  const errors: FieldError[] = [];
  if (listOf(spec['accessModes']).length === 0)
    errors.push(missing('spec.accessModes', 'at least 1 access mode is required'));
  for (const mode of listOf(spec['accessModes']))
    errors.push(...unsupported('spec.accessModes', mode, accessModes));
  if (Number.isNaN(size)) errors.push(missing('spec.resources[storage]'));
  if (size <= 0)
    errors.push(wrong('spec.resources[storage]', `${size}`, 'must be greater than zero'));
  if (!old || spec === before) return errors;
  const open = ['volumeName', 'storageClassName'].filter((key) => before[key] === undefined);
  if (pathOf(old, 'status.phase') === 'Bound') open.push('resources');
  if (!same(without(spec, ...open), without(before, ...open)))
    return [frozen('spec', claimImmutable)];
  if (size < had && !(size > quantityOf(pathOf(old, 'status.capacity.storage'))))
    return [frozen('spec.resources.requests.storage', claimShrinks)];
  const storage = objectOf(state, 'storageclasses', '', textOf(spec['storageClassName']));
  if (size > had && storage?.['allowVolumeExpansion'] !== true)
    forbid(resource, claim.metadata.name, claimFixed);
  return errors;
}

// ─── Structural schemas: pruning, defaults, validation ───────────────────────────────────────────
const schemaOf = ({ crd }: Resource): Rec => recOf(pathOf(crd, 'schema.openAPIV3Schema'));
/** A custom object without unknown fields and with its defaults; fieldValidation is heeded. */
function admitted({ resource, query, warnings, verb }: Call, object: ApiObject): ApiObject {
  if (!resource.crd) return object;
  const { kind, apiVersion } = resource;
  const unknown: string[] = [];
  const own = { apiVersion: {}, kind: {}, metadata: {} };
  const schema = schemaOf(resource);
  const properties = { ...recOf(schema['properties']), ...own };
  const result = conform({ ...schema, properties }, object, '', unknown) as ApiObject;
  const words = unknown.sort().map((path) => `unknown field "${path}"`);
  const what = `${kind} in version "${apiVersion.split('/')[1]}" cannot be handled as a ${kind}`;
  const strict = `strict decoding error: ${words.join(', ')}`;
  if (words.length > 0 && query['fieldValidation'] === 'Strict') {
    if (verb === 'patch') invalid('', '', '', [wrong('patch', JSON.stringify(object), strict)]);
    badRequest(`${what}: ${strict}`);
  }
  if (query['fieldValidation'] !== 'Ignore') warnings.push(...words);
  return result;
}
const under = (path: string, key: string): string => (path ? `${path}.${key}` : key);
function conform(schema: Rec, value: unknown, path: string, unknown: string[]): unknown {
  const { properties, additionalProperties, items, type } = schema;
  if (Array.isArray(value)) {
    const all = value.map((one, i) => conform(recOf(items), one, `${path}[${i}]`, unknown));
    return all.every((one, i) => one === value[i]) ? value : all;
  }
  if (!isRec(value)) return value;
  let isSame = true;
  const keepsAll = schema['x-kubernetes-preserve-unknown-fields'] === true || !type;
  const result: Record<string, unknown> = {};
  for (const [key, given] of Object.entries(value)) {
    const inner = recOf(properties)[key] ?? additionalProperties;
    const { default: fallback, nullable } = recOf(inner);
    if (inner === undefined && !keepsAll) unknown.push(under(path, key));
    else if (given !== null || fallback === undefined || nullable) {
      result[key] = conform(recOf(inner), given, under(path, key), unknown);
      isSame &&= result[key] === given;
    }
  }
  for (const [key, inner] of Object.entries(recOf(properties))) {
    const { default: fallback } = recOf(inner);
    if (result[key] === undefined && fallback !== undefined)
      result[key] = conform(recOf(inner), fallback, under(path, key), unknown);
  }
  return isSame && Object.keys(result).length === Object.keys(value).length ? value : result;
}
function checkValue(schema: Rec, value: unknown, old: unknown, at: string, errors: FieldError[]) {
  const type = typeName(value);
  const wanted = schema['x-kubernetes-int-or-string'] ? 'integer,string' : textOf(schema['type']);
  const fits = wanted.split(',').includes(type) || (wanted === 'number' && type === 'integer');
  if (wanted && !fits && !(value === null && schema['nullable'])) {
    const why = `${at} in body must be of type ${wanted}: "${type}"`;
    errors.push(fieldError(at, 'TypeInvalid', `Invalid value: "${type}"`, why));
    return;
  }
  checkLimits(schema, value, at, errors);
  const keys = textsOf(schema['x-kubernetes-list-map-keys']);
  const known = new Set<string>();
  for (const [index, item] of listOf(value).entries()) {
    const key = JSON.stringify(Object.fromEntries(keys.map((one) => [one, recOf(item)[one]])));
    if (keys.length > 0 && known.has(key))
      errors.push(fieldError(`${at}[${index}]`, 'Duplicate', `Duplicate value: ${key}`));
    known.add(key);
    checkValue(recOf(schema['items']), item, undefined, `${at}[${index}]`, errors);
  }
  const required = isRec(value) ? textsOf(schema['required']) : [];
  const isMissing = (key: string): boolean =>
    (recOf(value)[key] ?? undefined) === undefined && required.includes(key);
  for (const key of required) if (isMissing(key)) errors.push(missing(under(at, key)));
  for (const [key, inner] of Object.entries(recOf(value))) {
    const known = recOf(schema['properties'])[key] ?? schema['additionalProperties'];
    if ((at !== '' || key !== 'metadata') && !isMissing(key))
      checkValue(recOf(known), inner, recOf(old)[key], under(at, key), errors);
  }
  const rules = recsOf(schema['x-kubernetes-validations']) as readonly { [key: string]: string }[];
  if (rules.length > 0 && value !== null && !errors.some(blocksRules) && !same(value, old))
    for (const { rule = '', message } of rules)
      if (old !== undefined || !/\boldSelf\b/.test(rule))
        if (celRules.get(rule)?.(value, old) === false)
          errors.push(fieldError(at, 'Invalid', 'Invalid value', message));
}
type Holds = (one: unknown) => boolean;
const itemsOf = (all: object): readonly unknown[] => (Array.isArray(all) ? all : Object.keys(all));
/** What CEL has and JavaScript has not, so much of it as deploy.yaml uses. */
const celWords = {
  int: 'int',
  type: (value: unknown) => (Number.isInteger(value) ? 'int' : typeof value),
  size: (text: string) => text.length,
  matches: (text: string, form: string) => new RegExp(form).test(text),
  within: (all: object, item: string) => itemsOf(all).includes(item),
  all: (all: object, holds: Holds) => itemsOf(all).every(holds),
  exists_one: (all: object, holds: Holds) => itemsOf(all).filter(holds).length === 1,
};
const celRules = new Map<string, (self: unknown, oldSelf: unknown) => unknown>();
/** Takes a CEL rule for JavaScript; so only one that the server is started with. */
function learnRule(rule: string): void {
  const text = rule
    .replaceAll(/\bhas\(([\w.]+)\)/g, '($1 != null)')
    .replaceAll(/('[^']*'|[\w.]+) in (\[.*?\]|[\w.]+)/g, 'within($2, $1)')
    .replaceAll(/([\w.]+)\.(all|exists_one)\((\w+),/g, '$2($1, ($3) =>')
    .replaceAll(/([\w.]+)\.matches\(/g, 'matches($1,');
  const make = new Function(...Object.keys(celWords), `return (self, oldSelf) => ${text}`);
  celRules.set(rule, make(...Object.values(celWords)));
}
function typeName(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}
function checkLimits(schema: Rec, value: unknown, path: string, errors: FieldError[]): void {
  const { minimum, maximum, minLength, maxLength, pattern, enum: values } = schema;
  const check = (broken: boolean, why: string, found = value): void =>
    void (broken && errors.push(wrong(path, found, `${path} in body should ${why}`)));
  const most = (limit: unknown, size: number, kind: string, words: string): void =>
    void (size > Number(limit) && errors.push(fieldError(path, kind, words)));
  if (typeof value === 'number') {
    check(value < Number(minimum), `be greater than or equal to ${minimum}`);
    check(value > Number(maximum), `be less than or equal to ${maximum}`);
  }
  if (typeof value === 'string') {
    if (schema['format'] === 'date-time' && Number.isNaN(Date.parse(value)))
      errors.push(wrong(path, value, `${path} in body must be of type date-time: "${value}"`));
    check(value.length < Number(minLength), `be at least ${minLength} chars long`);
    check(!new RegExp(textOf(pattern)).test(value), `match '${pattern}'`);
    most(maxLength, value.length, 'TooLong', `Too long: may not be more than ${maxLength} bytes`);
  } else if (value !== null && typeof value === 'object') {
    const word = Array.isArray(value) ? 'Items' : 'Properties';
    const [least, limit] = [schema[`min${word}`], schema[`max${word}`]];
    const size = Object.keys(value).length;
    check(size < Number(least), `have at least ${least} ${word.toLowerCase()}`, size);
    most(limit, size, 'TooMany', `Too many: ${size}: must have at most ${limit} items`);
  }
  if (Array.isArray(values)) errors.push(...unsupported(path, value, values));
}

// ─── Tables: what kubectl prints ─────────────────────────────────────────────────────────────────
/** Columns beside name and age, `Name=path`; a CRD brings its own. */
const printed: Strings = {
  pods: 'Phase=status.phase Node=spec.nodeName IP=status.podIP',
  nodes: 'Unschedulable=spec.unschedulable Version=status.nodeInfo.kubeletVersion',
  statefulsets: 'Replicas=spec.replicas Ready=status.readyReplicas',
  persistentvolumeclaims: 'Status=status.phase Volume=spec.volumeName Size=status.capacity.storage',
  events: 'Type=type Reason=reason Object=involvedObject.name Message=message',
};
/** A Table when the client's Accept asks for one (kubectl get does), else undefined. */
function tableOf(call: Call, objects: readonly ApiObject[], metadata: Rec): Rec | undefined {
  const { headers, resource, now } = call;
  if (!headers['accept']?.includes('as=Table')) return undefined;
  const brought = recsOf(resource.crd?.['additionalPrinterColumns']);
  const pairs = `${printed[resource.plural] ?? ''} Age=metadata.creationTimestamp`
    .trim()
    .split(' ');
  const usual = pairs.map((pair) => {
    const [name = '', path] = pair.split('=');
    return { name, type: name === 'Age' ? 'date' : 'string', jsonPath: `.${path}` };
  });
  const name = { name: 'Name', type: 'string', format: 'name', jsonPath: '.metadata.name' };
  const columnDefinitions: Rec[] = [name, ...(brought.length > 0 ? brought : usual)];
  const rows = objects.map((object) => {
    const cells = columnDefinitions.map(({ type, jsonPath }) => {
      const value = pathOf(object, textOf(jsonPath).slice(1)) ?? '';
      return type === 'date' ? `${Math.round((now - Date.parse(`${value}`)) / 1000)}s` : value;
    });
    return { cells, object };
  });
  return { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions, rows };
}
const shown = (call: Call, object: ApiObject): unknown =>
  tableOf(call, [object], { resourceVersion: object.metadata.resourceVersion }) ?? object;

// ─── Discovery, version, health, OpenAPI ─────────────────────────────────────────────────────────
const serverVersion = { major: '1', minor: '36', gitVersion: 'v1.36.0-embedded', platform: 'none' };
/** What is answered without a resource, or undefined. */
function discover(state: ApiState, [root = '', ...rest]: Segments): ServerAnswer | undefined {
  const wanted = rest.join('/');
  if (root === 'version') return answerOf(200, serverVersion);
  if (root === 'openapi') return openApi(state, rest.length > 1);
  if (root === 'api' && !wanted) return answerOf(200, { kind: 'APIVersions', versions: ['v1'] });
  if ((root !== 'api' && root !== 'apis') || rest.length > 2) return undefined;
  const all = [...state.resources.values()];
  if (!wanted) {
    const versions = new Set(all.filter(({ group }) => group).map((one) => one.apiVersion));
    const groups = [...versions].map((groupVersion) => {
      const [name, version] = groupVersion.split('/');
      const preferredVersion = { groupVersion, version };
      return { name, versions: [preferredVersion], preferredVersion };
    });
    return answerOf(200, { kind: 'APIGroupList', apiVersion: 'v1', groups });
  }
  const resources = all.filter((one) => one.apiVersion === wanted).flatMap(discovered);
  if (resources.length === 0) return undefined;
  const list = { kind: 'APIResourceList', apiVersion: 'v1', groupVersion: wanted, resources };
  return answerOf(200, list);
}
const onItems = 'create delete get list patch update watch'.split(' ');
function discovered({ plural, kind, namespaced, shortNames, subresources }: Resource): Rec[] {
  const main = { name: plural, singularName: kind.toLowerCase(), namespaced, kind };
  const kinds: Readonly<Record<string, Rec>> = {
    scale: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
    eviction: { group: 'policy', version: 'v1', kind: 'Eviction', verbs: ['create'] },
  };
  const subs = subresources.map((sub) => {
    const own = { name: `${plural}/${sub}`, singularName: '', verbs: ['get', 'patch', 'update'] };
    return { ...main, ...own, ...kinds[sub] };
  });
  return [without({ ...main, verbs: onItems, shortNames: some(shortNames) }), ...subs];
}
/** Enough for kubectl to leave validation to the server: one document for all groups. */
function openApi({ resources }: ApiState, isDocument: boolean): ServerAnswer {
  const parameters = [{ name: 'fieldValidation', in: 'query', schema: { type: 'string' } }];
  const pairs = [...resources.values()].map(({ group, kind, plural, apiVersion }) => {
    const root = `${group ? 'apis' : 'api'}/${apiVersion}`;
    if (!isDocument) return [root, { serverRelativeURL: '/openapi/v3/all' }];
    const gvk = { group, kind, version: apiVersion.split('/').at(-1) };
    return [
      `/${root}/${plural}`,
      { patch: { parameters, 'x-kubernetes-group-version-kind': gvk } },
    ];
  });
  return answerOf(200, { openapi: '3.0.0', paths: Object.fromEntries(pairs) });
}

// ═══ HARNESS B · ACTORS · effects through World only ════════════════════════════════════════════
// What a cluster has beside its API server, as API clients: scheduler, kubelets, node controller
// with its taint manager, pod GC, volume provisioner, garbage collector (owners, claim protection,
// namespaces), StatefulSets. They serve the embedded and a real API server alike. One informer per
// kind feeds keyed lanes; every lane is level-triggered, so it may be repeated at any time. The
// rules are those of Kubernetes 1.36; the function that is modelled is named where it matters.
// Not modelled: resource fit, preemption, pod and node affinity, zone disruption modes, static
// binding of pre-made volumes, probes, readiness gates, sidecars, node pressure (fail() instead).
// Images tell fate: 'bad' never becomes Ready, 'crash' crash-loops, 'missing' cannot be pulled.

const actorDefaults = {
  startMs: 500, // From bound claims to running containers; half of it for a restart.
  stopMs: 500, // What containers take to stop, if the grace period is not shorter.
  provisionMs: 200,
  heartbeatMs: 10_000,
  nodeGraceMs: 40_000, // Silence after which a node is Unknown.
  podGcMs: 20_000, // Period of the pod GC.
  quarantineMs: 40_000, // How long a node must be absent before its pods are collected.
  crashMs: 10_000, // First CrashLoopBackOff delay; doubles to 5 min.
  labels: (_node: string): Labels => ({}),
  sets: false, // Play the controller of StatefulSets, too.
};
type ActorOptions = Readonly<Partial<typeof actorDefaults> & { nodes: readonly string[] }>;
type Actors = ReturnType<typeof startActors>;

// ── What the actors share ───────────────────────────────────────────────────────────────────────
type SeenMeta = k8s.V1ObjectMeta & { name: string; uid: string; resourceVersion: string };
type Item<S = unknown, T = unknown> = Readonly<{ metadata: SeenMeta; spec: S; status?: T }>;
type SeenPod = Item<k8s.V1PodSpec, k8s.V1PodStatus>;
type SeenNode = Item<k8s.V1NodeSpec, k8s.V1NodeStatus>;
type SeenClaim = Item<k8s.V1PersistentVolumeClaimSpec, k8s.V1PersistentVolumeClaimStatus>;
type SeenVolume = Item<k8s.V1PersistentVolumeSpec, k8s.V1PersistentVolumeStatus>;
type SeenClass = Item & Omit<k8s.V1StorageClass, 'metadata'>;
/** Every kind the actors watch, and its kind in owner references. Not served (404) means empty. */
const kinds = {
  nodes: ['/api/v1/nodes', 'Node'],
  classes: ['/apis/storage.k8s.io/v1/storageclasses', 'StorageClass'],
  volumes: ['/api/v1/persistentvolumes', 'PersistentVolume'],
  claims: ['/api/v1/persistentvolumeclaims', 'PersistentVolumeClaim'],
  pods: ['/api/v1/pods', 'Pod'],
  namespaces: ['/api/v1/namespaces', 'Namespace'],
  clusters: ['/apis/enge.me/v1alpha1/statefulclusters', 'StatefulCluster'],
  sets: ['/apis/apps/v1/statefulsets', 'StatefulSet'],
  revisions: ['/apis/apps/v1/controllerrevisions', 'ControllerRevision'],
} as const;
type Kind = keyof typeof kinds;
const allKinds = Object.keys(kinds) as Kind[];
interface View extends Record<Kind, Map<string, Item>> {
  nodes: Map<string, SeenNode>;
  classes: Map<string, SeenClass>;
  volumes: Map<string, SeenVolume>;
  claims: Map<string, SeenClaim>;
  pods: Map<string, SeenPod>;
}
type Again = Promise<number | void>; // ms until the next look
type Work = (stage: Stage, key: string) => Again;
type Groups = Map<string, Set<string>>;
type Stage = ReturnType<typeof newStage>;
function newStage(world: World, options: ActorOptions, signal: AbortSignal) {
  return {
    ...{ world, signal, options: { ...actorDefaults, ...options }, ips: 0 },
    view: Object.fromEntries(allKinds.map((kind) => [kind, new Map()])) as unknown as View,
    podsOn: new Map() as Groups, // Node → pods, assumed bindings included.
    podsUsing: new Map() as Groups, // Claim → pods.
    dependents: new Map() as Groups, // Owner UID → ids.
    alive: new Map<string, string>(), // UID → id: kind, blank, key.
    assumed: new Map<string, string>(), // Pod UID → the node chosen for it.
    pending: new Set<string>(), // Pods that no node suits now.
    since: new Map<string, number>(), // First sight of a lasting fact, on the monotonic clock.
    machines: new Map<string, Machine>(),
    lanes: {} as Record<LaneName, (key: string) => void>,
    unlisted: new Set(allKinds), // Kinds whose first list is still awaited.
    unserved: new Set<Kind>(),
  };
}
type LaneName = 'bind' | 'pod' | 'machine' | 'monitor' | 'evict' | 'podgc' | OtherLane;
type OtherLane = 'claim' | 'volume' | 'protect' | 'owned' | 'namespace' | 'set';
/** What each lane does, and the kinds whose objects it looks at again when they change. */
const laneTable: Readonly<Record<LaneName, readonly [Work, ...Kind[]]>> = {
  bind: [schedulePod, 'pods'],
  pod: [syncPod, 'pods'],
  machine: [syncMachine, 'nodes'],
  monitor: [monitorNode, 'nodes'],
  evict: [evictPod, 'pods'],
  podgc: [collectPod, 'pods'],
  claim: [syncClaim, 'claims'],
  volume: [syncVolume, 'volumes'],
  protect: [unprotect, 'claims', 'volumes'],
  owned: [collectOwned],
  namespace: [emptyNamespace, 'namespaces'],
  set: [syncSet, 'sets'],
};
const laneNames = Object.keys(laneTable) as LaneName[];
/** A keyed queue: a key is never worked on twice at once, and a failed one is tried again. */
function newLane(stage: Stage, name: LaneName): (key: string) => void {
  if (name === 'set' && !stage.options.sets) return () => undefined;
  const [work] = laneTable[name];
  const busy = new Set<string>();
  const again = new Set<string>();
  const wakeAt = new Map<string, number>();
  const run = async (key: string): Promise<void> => {
    busy.add(key);
    do {
      again.delete(key);
      const nextMs = await work(stage, key).catch((error) => {
        stage.world.log('debug', `${name} ${key}: ${String(error)}`);
        return 200;
      });
      if (nextMs !== undefined) wake(key, Math.max(1, nextMs));
    } while (again.has(key) && !stage.signal.aborted);
    busy.delete(key);
  };
  const wake = (key: string, ms: number): void => {
    const at = stage.world.uptime() + ms;
    if ((wakeAt.get(key) ?? Infinity) <= at) return; // an earlier look is planned already
    wakeAt.set(key, at);
    void stage.world.sleep(ms, stage.signal).then(() => {
      if (wakeAt.get(key) === at) wakeAt.delete(key);
      add(key);
    });
  };
  const add = (key: string): void => {
    if (busy.has(key)) again.add(key);
    else if (!stage.signal.aborted && stage.unlisted.size === 0) void run(key);
  };
  return add;
}
/** One request. A refusal throws, unless its status is in `fine`. */
async function ask(stage: Stage, method: Method, path: string, body?: unknown, fine = [404, 409]) {
  const type = path.endsWith('/status') ? 'application/strategic-merge-patch+json' : MERGE_PATCH;
  const contentType = method === 'PATCH' ? type : 'application/json';
  const answer = await stage.world.send({ method, path, body, contentType });
  if (answer.status < 400 || fine.includes(answer.status)) return answer;
  throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
}
/** A patch that hits the very object that was seen, or nothing; its answer is seen at once. */
type Edit = { metadata?: object; spec?: object; status?: object };
async function amend(stage: Stage, kind: Kind, { metadata }: Item, change: Edit): Promise<void> {
  const path = urlOf(kind, metadata) + (change.status ? '/status' : '');
  const body = { ...change, metadata: { uid: metadata.uid, ...change.metadata } };
  const { body: next } = await ask(stage, 'PATCH', path, body);
  const now = stage.view[kind].get(keyIn(metadata));
  if (now?.metadata.uid === metadata.uid && isNewer(next as Item, now))
    (stage.view[kind] as Map<string, Item>).set(keyIn(metadata), next as Item);
}
async function deleteSeen(stage: Stage, kind: Kind, seen: Item, options = {}): Promise<void> {
  const body = { preconditions: { uid: seen.metadata.uid }, ...options };
  await ask(stage, 'DELETE', urlOf(kind, seen.metadata), body);
}
/** A live GET finds nothing of this name, or another object. */
async function isGone(stage: Stage, kind: Kind, meta: k8s.V1ObjectMeta, uid?: string) {
  const { status, body } = await ask(stage, 'GET', urlOf(kind, meta), undefined, [404]);
  return status === 404 || (uid !== undefined && (body as Item).metadata.uid !== uid);
}
function urlOf(kind: Kind, { name, namespace }: k8s.V1ObjectMeta): string {
  const [path] = kinds[kind];
  const cut = path.lastIndexOf('/');
  const scope = namespace === undefined ? '' : `/namespaces/${namespace}`;
  return `${path.slice(0, cut)}${scope}${path.slice(cut)}/${name}`;
}
const keyIn = ({ name, namespace }: k8s.V1ObjectMeta): string =>
  namespace === undefined ? (name ?? '') : `${namespace}/${name}`;
const isNewer = (a: Item, b: Item): boolean =>
  Number(a.metadata?.resourceVersion) > Number(b.metadata.resourceVersion);
/** List, watch, and list again when the stream breaks or its version expired; for ever. */
async function followKind(stage: Stage, kind: Kind, synced: () => void): Promise<void> {
  const [path] = kinds[kind];
  for (let version = ''; !stage.signal.aborted;) {
    try {
      version ||= await relist(stage, kind);
      if (stage.unlisted.size === 0) synced();
      const query = `?watch=1&allowWatchBookmarks=true&resourceVersion=${version}`;
      const { status } = await stage.world.watch(
        path + query,
        ({ type, object }) => {
          version = type === 'ERROR' ? '' : (object as Item).metadata.resourceVersion;
          if (type !== 'ERROR' && type !== 'BOOKMARK')
            observe(stage, kind, object as Item, type === 'DELETED');
        },
        stage.signal,
      );
      if (status >= 400) throw new Error(`watch: ${status}`);
    } catch (error) {
      stage.world.log('debug', `${path}: ${String(error)}`);
      version = '';
      await stage.world.sleep(stage.unserved.has(kind) ? 5000 : 500, stage.signal);
    }
  }
}
async function relist(stage: Stage, kind: Kind): Promise<string> {
  const { status, body } = await ask(stage, 'GET', kinds[kind][0], undefined, [404]);
  const { items, metadata } = status === 404 ? { items: [] } : (body as k8s.V1PodList);
  const found = new Set(items.map((item) => item.metadata?.uid));
  for (const old of [...stage.view[kind].values()])
    if (!found.has(old.metadata.uid)) observe(stage, kind, old, true);
  for (const item of items) observe(stage, kind, item as Item, false);
  if (stage.unlisted.delete(kind) && stage.unlisted.size === 0) begin(stage);
  const version = metadata?.resourceVersion;
  if (version) stage.unserved.delete(kind);
  else stage.unserved.add(kind);
  if (!version) throw new Error('not served');
  return version;
}
/** Only now is absence from the view worth anything. */
function begin(stage: Stage): void {
  for (const kind of allKinds)
    for (const [key, object] of stage.view[kind]) announce(stage, kind, key, object, false);
  for (const id of stage.alive.values()) stage.lanes.owned(id);
  for (const name of stage.machines.keys()) stage.lanes.machine(name);
}
/** Takes one object into the view and its indexes, and tells the lanes. */
function observe(stage: Stage, kind: Kind, object: Item, gone: boolean): void {
  const view = stage.view[kind] as Map<string, Item>;
  const key = keyIn(object.metadata);
  const was = view.get(key);
  const isOther = was !== undefined && was.metadata.uid !== object.metadata.uid;
  if (was && (isOther ? gone : !gone && isNewer(was, object))) return; // an old story
  if (isOther) observe(stage, kind, was, true);
  if (gone) view.delete(key);
  else view.set(key, object);
  for (const owner of was?.metadata.ownerReferences ?? []) {
    if (object.metadata.ownerReferences?.some(({ uid }) => uid === owner.uid)) continue;
    regroup(stage.dependents, owner.uid, `${kind} ${key}`, true); // It was let go of.
    stage.lanes.owned(stage.alive.get(owner.uid) ?? '');
  }
  indexOwners(stage, `${kind} ${key}`, object, gone);
  if (kind === 'pods') indexPod(stage, key, object as SeenPod, gone);
  announce(stage, kind, key, object, gone);
}
function indexPod(stage: Stage, key: string, pod: SeenPod, gone: boolean): void {
  const { uid } = pod.metadata;
  const node = pod.spec.nodeName ?? stage.assumed.get(uid);
  if (node !== undefined) regroup(stage.podsOn, node, key, gone);
  for (const claim of claimKeys(pod)) regroup(stage.podsUsing, claim, key, gone);
  if (gone || pod.spec.nodeName !== undefined) stage.assumed.delete(uid);
  if (!gone) return;
  stage.pending.delete(key);
  for (const fact of ['evict', 'collect']) stage.since.delete(`${fact} ${uid}`);
  const machine = stage.machines.get(node ?? '');
  if (machine?.power === 'on') machine.runs.delete(uid); // else when the machine is back
}
function indexOwners(stage: Stage, id: string, { metadata }: Item, gone: boolean): void {
  const { uid, ownerReferences = [], finalizers } = metadata;
  if (gone) stage.alive.delete(uid);
  else stage.alive.set(uid, id);
  for (const owner of ownerReferences) {
    regroup(stage.dependents, owner.uid, id, gone);
    if (gone && stage.alive.has(owner.uid)) stage.lanes.owned(stage.alive.get(owner.uid) ?? '');
  }
  if (gone) for (const other of stage.dependents.get(uid) ?? []) stage.lanes.owned(other);
  else if (ownerReferences.length > 0 || finalizers) stage.lanes.owned(id);
}
function regroup(groups: Groups, group: string, member: string, gone: boolean): void {
  const members = groups.get(group);
  if (gone) members?.delete(member);
  else if (members) members.add(member);
  else groups.set(group, new Set([member]));
  if (members?.size === 0) groups.delete(group);
}
function announce(stage: Stage, kind: Kind, key: string, object: Item, gone: boolean): void {
  const { lanes, view, podsUsing } = stage;
  const { namespace = '' } = object.metadata;
  for (const name of laneNames) if (laneTable[name].includes(kind)) lanes[name](key);
  if (kind === 'nodes')
    for (const pod of stage.podsOn.get(key) ?? []) (lanes.evict(pod), lanes.podgc(pod));
  if (kind === 'nodes' || (kind === 'pods' && gone))
    for (const pod of stage.pending) lanes.bind(pod);
  const boss = kind === 'pods' && object.metadata.ownerReferences?.find(({ controller: c }) => c);
  if (boss && boss.kind === 'StatefulSet') lanes.set(`${namespace}/${boss.name}`);
  const ref = kind === 'volumes' ? keyIn((object as SeenVolume).spec.claimRef ?? {}) : '';
  if (kind === 'claims') lanes.volume((object as SeenClaim).spec.volumeName ?? '');
  if (kind === 'volumes') lanes.claim(ref);
  if (kind === 'claims' || kind === 'volumes')
    for (const pod of podsUsing.get(ref || key) ?? []) (lanes.bind(pod), lanes.pod(pod));
  if (kind === 'pods' && gone) claimKeys(object as SeenPod).forEach(lanes.protect);
  if (gone && isStopping(view.namespaces.get(namespace))) lanes.namespace(namespace);
}
const isStopping = (object: Item | undefined): boolean =>
  object?.metadata.deletionTimestamp !== undefined;
const isOver = ({ status }: SeenPod): boolean => /Failed|Succeeded/.test(status?.phase ?? '');
function claimKeys({ metadata, spec }: SeenPod): string[] {
  const names = (spec.volumes ?? []).map((volume) => volume.persistentVolumeClaim?.claimName);
  return names.flatMap((name) => (name === undefined ? [] : `${metadata.namespace}/${name}`));
}
type Stated = SeenPod | SeenNode;
const statusIn = ({ status }: Stated, type: string): string | undefined =>
  status?.conditions?.find((condition) => condition.type === type)?.status;
const stamp = ({ world }: Stage): string => timeOf(world.now());
type Why = readonly (string | null)[]; // Reason and message.
/** A condition whose transition time moves with its status only. `null` removes an old reason. */
function conditionNow(stage: Stage, of: Stated, type: string, is: boolean | 'Unknown', why?: Why) {
  const [reason = null, message = null] = why ?? [];
  const word = is === 'Unknown' ? is : is ? 'True' : 'False';
  const was = of.status?.conditions?.find((condition) => condition.type === type);
  const lastTransitionTime = (was?.status === word && was.lastTransitionTime) || stamp(stage);
  return { type, status: word, reason, message, lastTransitionTime };
}
/** When a lasting fact was first seen; forgotten as soon as it does not hold. */
function sinceFirst(stage: Stage, fact: string, holds: boolean): number {
  const first = stage.since.get(fact) ?? stage.world.uptime();
  if (holds) stage.since.set(fact, first);
  else stage.since.delete(fact);
  return first;
}

// ── Scheduler ───────────────────────────────────────────────────────────────────────────────────
const selectedNode = 'volume.kubernetes.io/selected-node';
async function schedulePod(stage: Stage, key: string): Promise<void> {
  const pod = stage.view.pods.get(key);
  if (!pod || pod.spec.nodeName !== undefined || isStopping(pod)) return;
  const keys = claimKeys(pod);
  const problem = keys.map((claim) => claimProblem(stage, claim)).find((one) => one);
  const claims = keys.flatMap((claim) => stage.view.claims.get(claim) ?? []);
  const [node, why] = problem ? [undefined, problem] : chooseNode(stage, pod, claims);
  if (node === undefined) {
    stage.pending.add(key); // any change of a node may help
    const conditions = [conditionNow(stage, pod, 'PodScheduled', false, ['Unschedulable', why])];
    if (!covers({ conditions }, pod.status))
      await amend(stage, 'pods', pod, { status: { conditions } });
    return;
  }
  stage.pending.delete(key);
  stage.assumed.set(pod.metadata.uid, node);
  regroup(stage.podsOn, node, key, false);
  const unbound = claims.filter((claim) => claim.status?.phase !== 'Bound');
  for (const claim of unbound)
    if (claim.metadata.annotations?.[selectedNode] !== node)
      await amend(stage, 'claims', claim, { metadata: { annotations: { [selectedNode]: node } } });
  if (unbound.length > 0) return; // the provisioner's binding wakes this pod
  const { name, namespace } = pod.metadata;
  const body = { metadata: { name, namespace }, target: { kind: 'Node', name: node } };
  await ask(stage, 'POST', `${urlOf('pods', pod.metadata)}/binding`, body);
}
/** Why a pod with this claim fits no node at all. */
function claimProblem({ view }: Stage, key: string): string | undefined {
  const claim = view.claims.get(key);
  const { volumeName = '', storageClassName = '' } = claim?.spec ?? {};
  const name = `persistentvolumeclaim "${key.replace(/.*\//, '')}"`;
  if (!claim) return `${name} not found`;
  if (isStopping(claim)) return `${name} is being deleted`;
  if (claim.status?.phase === 'Lost') return `${name} bound to non-existent persistentvolume`;
  if (claim.status?.phase === 'Bound' && view.volumes.has(volumeName)) return undefined;
  const waits = view.classes.get(storageClassName)?.volumeBindingMode === 'WaitForFirstConsumer';
  return waits ? undefined : 'pod has unbound immediate PersistentVolumeClaims';
}
/** The node assumed or selected before if it still suits, else the one with the fewest pods. */
function chooseNode(stage: Stage, pod: SeenPod, claims: SeenClaim[]): [string | undefined, string] {
  const { nodes, volumes } = stage.view;
  const refusals: Record<string, number> = {};
  const bound = claims.flatMap((claim) => volumes.get(claim.spec.volumeName ?? '') ?? []);
  const before = claims.map(({ metadata }) => metadata.annotations?.[selectedNode]);
  const kept = [stage.assumed.get(pod.metadata.uid), ...before];
  let best: string | undefined;
  let least = Infinity;
  for (const [name, node] of nodes) {
    const because = objection(pod, node, bound);
    const load = kept.includes(name) ? -1 : (stage.podsOn.get(name)?.size ?? 0);
    if (because !== undefined) refusals[because] = (refusals[because] ?? 0) + 1;
    else if (load < least || (load === least && name < (best ?? ''))) [best, least] = [name, load];
  }
  const reasons = Object.entries(refusals).map(([because, count]) => `${count} ${because}`);
  return [best, `0/${nodes.size} nodes are available: ${reasons.sort().join(', ')}.`];
}
/** Why a node does not suit, in the words of the scheduler's plugins. */
function objection(pod: SeenPod, node: SeenNode, volumes: SeenVolume[]): string | undefined {
  const { labels = {} } = node.metadata;
  const { nodeSelector = {} } = pod.spec;
  const bad = (taint: k8s.V1Taint) => taint.effect !== 'PreferNoSchedule' && !tolerance(pod, taint);
  const allows = ({ matchExpressions = [] }: k8s.V1NodeSelectorTerm): boolean =>
    matchExpressions.every(({ key, values }) => values?.includes(labels[key] ?? ''));
  const reaches = ({ spec: { nodeAffinity } }: SeenVolume): boolean =>
    nodeAffinity?.required?.nodeSelectorTerms.some(allows) ?? true;
  if (node.spec.unschedulable) return 'node(s) were unschedulable';
  if (node.spec.taints?.some(bad)) return 'node(s) had untolerated taint(s)';
  if (!covers(nodeSelector, labels)) return "node(s) didn't match Pod's node affinity/selector";
  if (!volumes.every(reaches)) return "node(s) didn't match PersistentVolume's node affinity";
  return undefined;
}
function tolerance({ spec }: SeenPod, taint: k8s.V1Taint): k8s.V1Toleration | undefined {
  return spec.tolerations?.find(
    ({ key, operator, value, effect }) =>
      (!effect || effect === taint.effect) &&
      (!key || key === taint.key) &&
      (operator === 'Exists' || (value ?? '') === (taint.value ?? '')),
  );
}
/** True if `have` says all that `want` says; list elements with a type are matched by it. */
function covers(want: unknown, have: unknown): boolean {
  if (want === null || want === undefined) return have === null || have === undefined;
  if (typeof want !== 'object') return want === have;
  if (typeof have !== 'object' || have === null) return false;
  return Object.entries(want).every(([key, value]) => {
    const type = Array.isArray(have) && Reflect.get(Object(value), 'type');
    const typed = type && Array.isArray(have) && have.find((element) => element.type === type);
    return covers(value, type ? typed : Reflect.get(have, key));
  });
}

// ── Kubelets ────────────────────────────────────────────────────────────────────────────────────
type Machine = ReturnType<typeof newMachine>;
const newMachine = (name: string) => ({
  name,
  runs: new Map<string, Run>(), // By pod UID.
  power: 'on' as 'on' | 'off' | 'cut',
  registered: false,
  leaving: false, // Graceful node shutdown.
  removed: false,
});
/** A pod as its machine runs it; the API object only mirrors this. */
type Run = ReturnType<typeof newRun>;
type RunEnd = { phase: string; reason?: string; message?: string; disrupted?: boolean };
const newRun = (number: number) => ({
  ip: `10.${1 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`,
  boxes: new Map<string, Box>(),
  unready: false,
  end: undefined as RunEnd | undefined,
  stopAt: Infinity,
});
/** One container. */
type Box = ReturnType<typeof newBox>;
const newBox = ({ image = '' }: k8s.V1Container, at: number) => ({
  aim: image, // The image it should run.
  image,
  resources: {} as k8s.V1ResourceRequirements,
  restarts: -1, // Never started.
  startedAt: undefined as string | undefined, // Set: it runs.
  exitedAt: undefined as string | undefined,
  next: 'start' as 'start' | 'stop' | 'resize',
  at, // When `next` is due, on the monotonic clock; Infinity: settled.
});
async function syncPod(stage: Stage, key: string): Again {
  const pod = stage.view.pods.get(key);
  const machine = stage.machines.get(pod?.spec.nodeName ?? '');
  if (!pod || machine?.power !== 'on') return;
  const { uid } = pod.metadata;
  const run = machine.runs.get(uid) ?? newRun(stage.ips++);
  machine.runs.set(uid, run);
  if (isStopping(pod)) return stopPod(stage, pod, machine, run);
  if (isOver(pod)) return;
  const now = stage.world.uptime();
  const claims = claimKeys(pod).map((claim) => stage.view.claims.get(claim));
  const mounted = claims.every((claim) => claim?.status?.phase === 'Bound' && !isStopping(claim));
  let due = Infinity;
  for (const spec of run.end ? [] : pod.spec.containers) {
    const first = mounted ? newBox(spec, now + stage.options.startMs) : undefined;
    const box = run.boxes.get(spec.name) ?? first;
    if (!box) continue; // waits for its volumes: a change of the claim wakes it
    run.boxes.set(spec.name, box);
    turnBox(stage, box, spec, now);
    due = Math.min(due, box.at);
  }
  await reportPod(stage, pod, run);
  return due === Infinity ? undefined : due - now;
}
/** Moves one container on. A change of its spec is noticed first (observedGeneration), acted on
 *  half a startMs later, and the restart takes the other half, as with a real kubelet. */
function turnBox(stage: Stage, box: Box, spec: k8s.V1Container, now: number): void {
  const { startMs, crashMs } = stage.options;
  const { image = '', resources = {} } = spec;
  if (image !== box.aim) {
    const next = box.startedAt === undefined ? 'start' : 'stop';
    const runsIt = image === box.image && box.startedAt !== undefined; // It was not stopped yet.
    Object.assign(box, { aim: image, next, at: runsIt ? Infinity : now + startMs / 2 });
  } else if (box.startedAt !== undefined && box.at === Infinity)
    if (!covers(resources, box.resources))
      Object.assign(box, { next: 'resize', at: now + startMs / 2 });
  while (box.at <= now) {
    box.at = Infinity;
    if (box.next === 'stop') {
      exitBox(stage, box);
      Object.assign(box, { next: 'start', at: now + startMs / 2 });
      continue;
    }
    box.resources = resources;
    if (box.next === 'resize') continue;
    box.image = image;
    if (/missing/.test(image)) continue;
    box.restarts++;
    box.startedAt = stamp(stage);
    if (!/crash/.test(image)) continue;
    exitBox(stage, box);
    box.at = now + Math.min(300_000, crashMs * 2 ** box.restarts);
  }
}
function exitBox(stage: Stage, box: Box): void {
  if (box.startedAt !== undefined) box.exitedAt = stamp(stage);
  box.startedAt = undefined;
}
/** Containers stop, the terminal phase is written, and only then the object goes (by UID). */
async function stopPod(stage: Stage, pod: SeenPod, machine: Machine, run: Run): Again {
  const now = stage.world.uptime();
  const graceMs = (pod.metadata.deletionGracePeriodSeconds ?? 0) * 1000;
  run.stopAt = Math.min(run.stopAt, now + Math.min(stage.options.stopMs, graceMs));
  if (now < run.stopAt) return run.stopAt - now;
  const isClean = run.boxes.size > 0 && pod.metadata.uid.charCodeAt(0) % 2 === 0; // exit code 0
  run.end ??= { phase: isClean ? 'Succeeded' : 'Failed' };
  if (!isOver(pod)) await reportPod(stage, pod, run);
  if (machine.power === 'on') await deleteSeen(stage, 'pods', pod, { gracePeriodSeconds: 0 });
}
/** Writes what the machine runs into the pod's status, if that says something else. */
async function reportPod(stage: Stage, pod: SeenPod, run: Run): Promise<void> {
  const { containers } = pod.spec;
  const { phase, reason, message, disrupted } = run.end ?? {};
  const boxes = containers.map((spec) => run.boxes.get(spec.name) ?? newBox(spec, Infinity));
  const sick = containers.filter((_, i) => phase || !isReady(run, boxes[i]));
  const list = `containers with unready status: [${sick.map(({ name }) => name).join(' ')}]`;
  const ended = phase && (phase === 'Failed' ? 'PodFailed' : 'PodCompleted');
  const why = sick.length === 0 ? [] : [ended ?? 'ContainersNotReady', ended ? null : list];
  const say = (type: string, ok: boolean, why: Why = []) => conditionNow(stage, pod, type, ok, why);
  const cause = 'TerminationByKubelet';
  const isRunning = boxes.every((box) => box.restarts >= 0);
  const status = {
    phase: phase ?? (isRunning ? 'Running' : 'Pending'),
    ...(reason && { reason, message }),
    observedGeneration: pod.metadata.generation,
    startTime: pod.status?.startTime ?? stamp(stage),
    ...(run.boxes.size > 0 && { podIP: run.ip, podIPs: [{ ip: run.ip }] }),
    conditions: [
      say('Initialized', true),
      say('ContainersReady', sick.length === 0, why),
      say('Ready', sick.length === 0, why),
      say('PodScheduled', true),
      ...(disrupted ? [say('DisruptionTarget', true, [cause, message ?? null])] : []),
    ],
    containerStatuses: boxes.map((box, i) => boxStatus(stage, pod, run, box, containers[i]?.name)),
  };
  if (!covers(status, pod.status)) await amend(stage, 'pods', pod, { status });
}
const isReady = (run: Run, box: Box | undefined): boolean =>
  box?.startedAt !== undefined && !run.unready && !/bad/.test(box.image);
function boxStatus(stage: Stage, pod: SeenPod, run: Run, box: Box, name = ''): object {
  const { image, restarts, startedAt, exitedAt, resources } = box;
  const again = restarts < 0 ? 'ContainerCreating' : 'CrashLoopBackOff';
  const waiting = { reason: /missing/.test(image) ? 'ImagePullBackOff' : again };
  const [exitCode, reason] = run.end?.phase === 'Succeeded' ? [0, 'Completed'] : [143, 'Error'];
  const running = startedAt === undefined ? { waiting } : { running: { startedAt } };
  const last = { exitCode: 1, reason: 'Error', startedAt: exitedAt, finishedAt: exitedAt };
  const finishedAt = stamp(stage);
  const origin = `${pod.metadata.uid}/${name}/${stage.since.get('boot')}`;
  return {
    name,
    image,
    imageID: restarts < 0 ? '' : `sim://${image}`,
    ready: !run.end && isReady(run, box),
    started: !run.end && startedAt !== undefined,
    restartCount: Math.max(0, restarts),
    state: run.end ? { terminated: { exitCode, reason, startedAt, finishedAt } } : running,
    ...(restarts >= 0 && { containerID: `sim://${origin}/${restarts}` }),
    ...(exitedAt !== undefined && { lastState: { terminated: last } }),
    ...(Object.keys(resources).length > 0 && { resources }),
  };
}
/** The kubelet's node side: registers once per boot, then only keeps its own Ready condition. */
async function syncMachine(stage: Stage, name: string): Promise<void> {
  const machine = stage.machines.get(name);
  const known = stage.view.nodes.get(name);
  if (machine?.removed && known) await deleteSeen(stage, 'nodes', known);
  if (machine?.power !== 'on') return;
  if (!machine.registered) {
    const labels = { 'kubernetes.io/hostname': name, ...stage.options.labels(name) };
    const body = { metadata: { name, labels }, spec: {} };
    const posted = await ask(stage, 'POST', kinds.nodes[0], body, [409]);
    machine.registered = true;
    if (posted.status < 300) observe(stage, 'nodes', posted.body as Item, false);
  }
  const node = stage.view.nodes.get(name);
  const ready = !machine.leaving;
  if (!node || statusIn(node, 'Ready') === (ready ? 'True' : 'False')) return;
  await renew(stage, name); // before Ready, or the node controller finds a silent kubelet
  const why = ready ? ['KubeletReady', 'ready'] : ['KubeletNotReady', 'node is shutting down'];
  const capacity = { cpu: '64', memory: '256Gi', pods: '10000' };
  const nodeInfo = { kubeletVersion: 'v1.36.2', containerRuntimeVersion: 'sim://1' };
  const conditions = [conditionNow(stage, node, 'Ready', ready, why)];
  const status = { capacity, allocatable: capacity, nodeInfo, conditions };
  await amend(stage, 'nodes', node, { status });
}
const leasesPath = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
async function renew(stage: Stage, name: string): Promise<void> {
  const renewTime = new Date(stage.world.now()).toISOString().replace('Z', '000Z');
  const body = { metadata: { name }, spec: { holderIdentity: name, renewTime } };
  const answer = await ask(stage, 'PATCH', `${leasesPath}/${name}`, body, [404]);
  if (answer.status === 404) await ask(stage, 'POST', leasesPath, body);
}
async function heartbeats(stage: Stage): Promise<void> {
  while (!stage.signal.aborted) {
    await stage.world.sleep(stage.options.heartbeatMs, stage.signal);
    for (const { name, power, registered } of stage.machines.values())
      if (power === 'on' && registered) renew(stage, name).catch(() => undefined); // late
  }
}

// ── Node controller, taint manager, pod GC ──────────────────────────────────────────────────────
/** Reads the Lease only when silence would have lasted nodeGraceMs, so heartbeats need no watch. */
async function monitorNode(stage: Stage, name: string): Again {
  const node = stage.view.nodes.get(name);
  const ready = node && (statusIn(node, 'Ready') ?? 'False');
  const outage = `outage ${name}`;
  const isNews = !stage.since.has(outage);
  sinceFirst(stage, outage, ready === 'False' || ready === 'Unknown');
  if (!node || !ready) return;
  await retaint(stage, node, ready);
  if (isNews && ready !== 'True') await markPodsNotReady(stage, name);
  if (ready === 'Unknown') return;
  const lease = await ask(stage, 'GET', `${leasesPath}/${name}`, undefined, [404]);
  const { renewTime } = (lease.body as k8s.V1Lease).spec ?? {};
  const heard = Date.parse(String(renewTime ?? node.metadata.creationTimestamp));
  const leftMs = heard + stage.options.nodeGraceMs - stage.world.now();
  if (leftMs > 0) return leftMs;
  const why = ['NodeStatusUnknown', 'Kubelet stopped posting node status.'];
  const status = { conditions: [conditionNow(stage, node, 'Ready', 'Unknown', why)] };
  await amend(stage, 'nodes', node, { status });
}
async function retaint(stage: Stage, node: SeenNode, ready: string): Promise<void> {
  const [bad, gone] = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'];
  const key = ready === 'True' ? undefined : ready === 'False' ? bad : gone;
  const { taints: old = [] } = node.spec;
  const ours = old.filter((taint) => taint.key === bad || taint.key === gone);
  if (ours.length === (key ? 2 : 0) && ours.every((taint) => taint.key === key)) return;
  const execute = { key, effect: 'NoExecute', timeAdded: stamp(stage) };
  const add = key ? [{ key, effect: 'NoSchedule' }, execute] : [];
  const taints = [...old.filter((taint) => !ours.includes(taint)), ...add];
  const { resourceVersion } = node.metadata;
  await amend(stage, 'nodes', node, { metadata: { resourceVersion }, spec: { taints } });
}
/** Once per outage; a kubelet that lives may say otherwise afterwards. */
async function markPodsNotReady(stage: Stage, node: string): Promise<void> {
  for (const key of [...(stage.podsOn.get(node) ?? [])]) {
    const pod = stage.view.pods.get(key);
    if (!pod || statusIn(pod, 'Ready') !== 'True' || pod.spec.nodeName !== node) continue;
    const status = { conditions: [conditionNow(stage, pod, 'Ready', false)] };
    await amend(stage, 'pods', pod, { status });
  }
}
/** processPodOnNode: a NoExecute taint ends a pod at once or after its shortest toleration. */
async function evictPod(stage: Stage, key: string): Again {
  const pod = stage.view.pods.get(key);
  const { taints = [] } = stage.view.nodes.get(pod?.spec.nodeName ?? '')?.spec ?? {};
  if (!pod || isStopping(pod)) return;
  const urgent = taints.filter(({ effect }) => effect === 'NoExecute');
  const used = urgent.map((taint) => tolerance(pod, taint) ?? { tolerationSeconds: 0 });
  const limitMs = Math.min(...used.map((one) => (one.tolerationSeconds ?? Infinity) * 1000));
  const since = sinceFirst(stage, `evict ${pod.metadata.uid}`, limitMs !== Infinity);
  const leftMs = since + limitMs - stage.world.uptime();
  if (leftMs > 0) return leftMs === Infinity ? undefined : leftMs;
  const why = ['DeletionByTaintManager', 'Taint manager: deleting due to NoExecute taint'];
  const conditions = [conditionNow(stage, pod, 'DisruptionTarget', true, why)];
  await amend(stage, 'pods', pod, { status: { conditions } });
  await deleteSeen(stage, 'pods', pod);
}
/** gcOrphaned, gcUnscheduledTerminating and gcTerminating (out-of-service), every podGcMs. */
async function collectPod(stage: Stage, key: string): Again {
  const pod = stage.view.pods.get(key);
  if (!pod) return;
  const { quarantineMs, podGcMs } = stage.options;
  const node = stage.view.nodes.get(pod.spec.nodeName ?? '');
  const isTaken = node?.spec.taints?.some((t) => t.key === 'node.kubernetes.io/out-of-service');
  const isOut = node === undefined || (isTaken && statusIn(node, 'Ready') !== 'True');
  const orphaned = !node && pod.spec.nodeName !== undefined;
  const ends = orphaned || (isOut === true && isStopping(pod));
  const since = sinceFirst(stage, `collect ${pod.metadata.uid}`, ends);
  if (!ends) return;
  const earliest = since + (orphaned ? quarantineMs : 1);
  const leftMs = Math.ceil(earliest / podGcMs) * podGcMs - stage.world.uptime();
  if (leftMs > 0) return leftMs;
  if (orphaned && !(await isGone(stage, 'nodes', { name: pod.spec.nodeName ?? '' })))
    return podGcMs;
  const why = ['DeletionByPodGC', 'PodGC: node no longer exists'];
  const conditions = orphaned ? [conditionNow(stage, pod, 'DisruptionTarget', true, why)] : [];
  if (!isOver(pod)) await amend(stage, 'pods', pod, { status: { phase: 'Failed', conditions } });
  await deleteSeen(stage, 'pods', pod, { gracePeriodSeconds: 0 });
}

// ── Volumes ─────────────────────────────────────────────────────────────────────────────────────
const driver = 'volumes.sim';
/** A disk of one node, made where its pod goes (default), and one that any node can mount. */
async function addClasses(stage: Stage): Promise<void> {
  const annotations = { 'storageclass.kubernetes.io/is-default-class': 'true' };
  const classes = [
    { metadata: { name: 'local-sim', annotations }, volumeBindingMode: 'WaitForFirstConsumer' },
    { metadata: { name: 'net-sim' }, volumeBindingMode: 'Immediate', allowVolumeExpansion: true },
  ];
  for (const one of classes)
    await ask(stage, 'POST', kinds.classes[0], { provisioner: driver, ...one }, [409]);
}
/** Makes and binds a volume, makes it larger, or says that it is lost. */
async function syncClaim(stage: Stage, key: string): Again {
  const claim = stage.view.claims.get(key);
  const made = stage.view.classes.get(claim?.spec.storageClassName ?? '');
  if (!claim || isStopping(claim) || made?.provisioner !== driver) return;
  const { uid, annotations, resourceVersion } = claim.metadata;
  const ofVersion = { metadata: { resourceVersion } };
  const { phase = 'Pending', capacity = {} } = claim.status ?? {};
  const { volumeName = `pvc-${uid}`, accessModes, resources } = claim.spec;
  const storage = resources?.requests?.storage ?? '';
  const volume = stage.view.volumes.get(volumeName);
  const node = annotations?.[selectedNode];
  const placed = made.volumeBindingMode === 'Immediate' || node !== undefined;
  const binds = placed && phase === 'Pending';
  const grows = phase === 'Bound' && made.allowVolumeExpansion && capacity.storage !== storage;
  if (phase === 'Bound' && !volume) {
    if (await isGone(stage, 'volumes', { name: volumeName }))
      await amend(stage, 'claims', claim, { ...ofVersion, status: { phase: 'Lost' } });
    return;
  }
  const since = sinceFirst(stage, `storage ${uid}`, binds || grows === true);
  const leftMs = since + stage.options.provisionMs - stage.world.uptime();
  if (!binds && !grows) return;
  if (leftMs > 0) return leftMs;
  const spec = { capacity: { storage } };
  if (grows && volume) await amend(stage, 'volumes', volume, { spec });
  else await makeVolume(stage, claim, made);
  const metadata = { annotations: { 'pv.kubernetes.io/bind-completed': 'yes' } };
  if (binds) await amend(stage, 'claims', claim, { metadata, spec: { volumeName } });
  const status = { phase: 'Bound', accessModes, capacity: { storage } };
  await amend(stage, 'claims', claim, { status });
}
async function makeVolume(stage: Stage, claim: SeenClaim, made: SeenClass): Promise<void> {
  const { name, namespace, uid, annotations } = claim.metadata;
  const { accessModes, resources } = claim.spec;
  const volumeName = `pvc-${uid}`;
  const values = [annotations?.[selectedNode] ?? ''];
  const terms = [{ matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values }] }];
  const pinned = made.volumeBindingMode !== 'Immediate' && made.parameters?.pinned !== 'false';
  const spec = {
    capacity: { storage: resources?.requests?.storage },
    accessModes,
    claimRef: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name, uid },
    persistentVolumeReclaimPolicy: made.reclaimPolicy ?? 'Delete',
    storageClassName: made.metadata.name,
    hostPath: { path: `/sim/${volumeName}` },
    ...(pinned && { nodeAffinity: { required: { nodeSelectorTerms: terms } } }),
  };
  const body = { metadata: { name: volumeName }, spec };
  const { status, body: volume } = await ask(stage, 'POST', kinds.volumes[0], body, [409]);
  if (status >= 300) return;
  observe(stage, 'volumes', volume as SeenVolume, false);
  await amend(stage, 'volumes', volume as SeenVolume, { status: { phase: 'Bound' } });
}
/** A volume whose claim is gone (by UID) is Released, and deleted if its policy says so. */
async function syncVolume(stage: Stage, name: string): Promise<void> {
  const volume = stage.view.volumes.get(name);
  const { claimRef, persistentVolumeReclaimPolicy } = volume?.spec ?? {};
  if (!volume || !claimRef?.name || isStopping(volume)) return;
  if (stage.view.claims.get(keyIn(claimRef))?.metadata.uid === claimRef.uid) return;
  if (!(await isGone(stage, 'claims', claimRef, claimRef.uid))) return;
  if (volume.status?.phase !== 'Released')
    await amend(stage, 'volumes', volume, { status: { phase: 'Released' } });
  if (persistentVolumeReclaimPolicy === 'Delete') await deleteSeen(stage, 'volumes', volume);
}

// ── Garbage collection ──────────────────────────────────────────────────────────────────────────
/** pvc-protection (podUsesPVC: any scheduled pod that names the claim) and pv-protection. */
async function unprotect(stage: Stage, key: string): Promise<void> {
  const users = [...(stage.podsUsing.get(key) ?? [])].map((pod) => stage.view.pods.get(pod));
  if (!users.some((pod) => pod?.spec.nodeName !== undefined))
    await dropFinalizer(stage, 'claims', key, 'kubernetes.io/pvc-protection');
  if (stage.view.volumes.get(key)?.status?.phase !== 'Bound')
    await dropFinalizer(stage, 'volumes', key, 'kubernetes.io/pv-protection');
}
async function dropFinalizer(stage: Stage, kind: Kind, key: string, name: string): Promise<void> {
  const object = stage.view[kind].get(key);
  const { finalizers: old = [], resourceVersion } = object?.metadata ?? {};
  const finalizers = old.filter((other) => other !== name);
  if (object && isStopping(object) && finalizers.length < old.length)
    await amend(stage, kind, object, { metadata: { resourceVersion, finalizers } });
}
/** attemptToDeleteItem: finalizers of an owner, or an object none of whose owners is left. */
async function collectOwned(stage: Stage, id: string): Again {
  const [kind, object] = found(stage, id);
  if (!object) return;
  const { finalizers = [], ownerReferences = [], resourceVersion, uid } = object.metadata;
  if (isStopping(object) && finalizers.includes('orphan')) return orphan(stage, kind, object);
  if (isStopping(object) && finalizers.includes('foregroundDeletion'))
    return deleteForeground(stage, kind, object);
  if (isStopping(object) || ownerReferences.length === 0) return;
  const states = await Promise.all(ownerReferences.map((owner) => stateOf(stage, object, owner)));
  const solid = ownerReferences.filter((_, i) => ['solid', 'unseen'].includes(states[i] ?? ''));
  // As kubernetes#56121: an owner may come and go while its kind is not watched.
  if (solid.length === ownerReferences.length) return states.includes('unseen') ? 5000 : undefined;
  if (solid.length > 0)
    return amend(stage, kind, object, { metadata: { resourceVersion, ownerReferences: solid } });
  const deep = states.includes('leaving') && stage.dependents.has(uid);
  await deleteSeen(stage, kind, object, { propagationPolicy: deep ? 'Foreground' : 'Background' });
}
function found(stage: Stage, id: string): [Kind, Item | undefined] {
  const [kind, key = ''] = id.split(' ') as [Kind, string];
  return [kind, stage.view[kind]?.get(key)];
}
/** An owner is absent only if a live GET says so; one of a kind not watched here is solid. */
async function stateOf(stage: Stage, { metadata }: Item, owner: k8s.V1OwnerReference) {
  const { namespace } = metadata;
  const kind = allKinds.find((one) => kinds[one][1] === owner.kind);
  if (!kind) return 'solid';
  const [, known] = found(stage, stage.alive.get(owner.uid) ?? '');
  const leaves = known?.metadata.finalizers?.includes('foregroundDeletion') && isStopping(known);
  if (known) return leaves && owner.blockOwnerDeletion ? 'leaving' : 'solid';
  const scope = kind === 'nodes' || kind === 'volumes' || !namespace ? {} : { namespace };
  const gone = await isGone(stage, kind, { name: owner.name, ...scope }, owner.uid);
  return gone ? 'absent' : 'unseen';
}
async function deleteForeground(stage: Stage, kind: Kind, owner: Item): Promise<void> {
  const { uid } = owner.metadata;
  const ids = [...(stage.dependents.get(uid) ?? [])];
  ids.forEach(stage.lanes.owned);
  const refs = ids.flatMap((id) => found(stage, id)[1]?.metadata.ownerReferences ?? []);
  if (refs.some((ref) => ref.uid === uid && ref.blockOwnerDeletion)) return;
  await dropFinalizer(stage, kind, keyIn(owner.metadata), 'foregroundDeletion');
}
async function orphan(stage: Stage, kind: Kind, owner: Item): Promise<void> {
  for (const id of [...(stage.dependents.get(owner.metadata.uid) ?? [])]) {
    const [otherKind, other] = found(stage, id);
    const { ownerReferences: old = [], resourceVersion } = other?.metadata ?? {};
    const ownerReferences = old.filter(({ uid }) => uid !== owner.metadata.uid);
    if (other)
      await amend(stage, otherKind, other, { metadata: { resourceVersion, ownerReferences } });
  }
  await dropFinalizer(stage, kind, keyIn(owner.metadata), 'orphan');
}
async function emptyNamespace(stage: Stage, name: string): Again {
  if (!isStopping(stage.view.namespaces.get(name))) return;
  let left = 0;
  for (const kind of allKinds)
    for (const object of [...stage.view[kind].values()]) {
      if (object.metadata.namespace !== name) continue;
      left++;
      if (!isStopping(object)) await deleteSeen(stage, kind, object);
    }
  if (left > 0) return 1000;
  const body = { metadata: { name }, spec: { finalizers: [] } };
  await ask(stage, 'PUT', `${urlOf('namespaces', { name })}/finalize`, body);
}

// ── StatefulSets ────────────────────────────────────────────────────────────────────────────────
// As updateStatefulSet in stateful_set_control.go: ordinals in order, each once those before it are
// Ready (all at once with Parallel); a pod that has finished is deleted, one that is Terminating is
// waited for; it is made again with its name and the claims of its ordinal, which outlive it, and
// are made again if they are gone; scaled in from the highest. Not played: new templates and their
// revisions, retention policies of claims, minReadySeconds, adoption, marks that are put right.
type SeenSet = Item<k8s.V1StatefulSetSpec>;
async function syncSet(stage: Stage, key: string): Promise<void> {
  const set = stage.view.sets.get(key) as SeenSet | undefined;
  if (!set || isStopping(set)) return;
  const { replicas = 1, ordinals, podManagementPolicy } = set.spec;
  const { start = 0 } = ordinals ?? {};
  const inOrder = podManagementPolicy !== 'Parallel';
  const isFit = (pod: SeenPod): boolean => !isStopping(pod) && statusIn(pod, 'Ready') === 'True';
  const numberOf = ({ metadata }: Item): number => Number(/\d+$/.exec(metadata.name)?.[0]);
  const own = [...(stage.dependents.get(set.metadata.uid) ?? [])]
    .flatMap((id) => (id.startsWith('pods ') ? [found(stage, id)[1] as SeenPod] : []))
    .toSorted((a, b) => numberOf(a) - numberOf(b));
  const count = own.filter(isFit).length;
  const counts = { replicas: own.length, readyReplicas: count, availableReplicas: count };
  const status = { observedGeneration: set.metadata.generation, ...counts };
  if (!covers(status, set.status)) await amend(stage, 'sets', set, { status });
  for (let ordinal = start; ordinal < start + replicas; ordinal++) {
    const pod = stage.view.pods.get(`${key}-${ordinal}`);
    if (!pod || pod.status?.phase === 'Pending') await makeOrdinal(stage, set, ordinal);
    if (pod && isOver(pod) && !isStopping(pod)) await deleteSeen(stage, 'pods', pod);
    if (inOrder && !(pod && isFit(pod))) return; // its next change wakes this set
  }
  const condemned = own.filter((pod) => numberOf(pod) < start || numberOf(pod) >= start + replicas);
  const unfit = condemned.find((pod) => !isFit(pod));
  for (const pod of condemned.toReversed()) {
    if (inOrder && (isStopping(pod) || (!isFit(pod) && pod !== unfit))) return;
    if (!isStopping(pod)) await deleteSeen(stage, 'pods', pod);
    if (inOrder) return;
  }
}
/** The claims that are not there, then the pod, unless it is there and waits for them. */
async function makeOrdinal(stage: Stage, { metadata, spec }: SeenSet, ordinal: number) {
  const { namespace = '', uid } = metadata;
  const { template, volumeClaimTemplates = [], selector, serviceName: subdomain } = spec;
  const name = `${metadata.name}-${ordinal}`;
  const volumes = [...(template.spec?.volumes ?? [])];
  for (const claim of volumeClaimTemplates) {
    const claimName = `${claim.metadata?.name}-${name}`;
    volumes.push({ name: claim.metadata?.name ?? '', persistentVolumeClaim: { claimName } });
    const old = stage.view.claims.get(`${namespace}/${claimName}`);
    if (isStopping(old)) throw new Error(`claim ${claimName} is being deleted`);
    const labels = { ...claim.metadata?.labels, ...selector.matchLabels };
    const body = { metadata: { ...claim.metadata, name: claimName, labels }, spec: claim.spec };
    if (!old) await ask(stage, 'POST', placeOf(namespace, 'persistentvolumeclaims'), body, [409]);
  }
  if (stage.view.pods.has(`${namespace}/${name}`)) return;
  const owner = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: metadata.name, uid };
  const ownerReferences = [{ ...owner, controller: true, blockOwnerDeletion: true }];
  const labels = { ...template.metadata?.labels, [POD_NAME]: name, [POD_INDEX]: `${ordinal}` };
  const body = {
    metadata: { ...template.metadata, name, labels, ownerReferences },
    spec: { ...template.spec, hostname: name, subdomain, volumes },
  };
  const made = await ask(stage, 'POST', placeOf(namespace, 'pods'), body, [409]);
  if (made.status < 300) observe(stage, 'pods', made.body as SeenPod, false);
}

// ── The actors together ─────────────────────────────────────────────────────────────────────────
function startActors(world: World, options: ActorOptions, signal: AbortSignal) {
  const stage = newStage(world, options, signal);
  stage.since.set('boot', world.uptime()); // No container ID is used again.
  for (const name of laneNames) stage.lanes[name] = newLane(stage, name);
  for (const name of options.nodes) machineOf(stage, name);
  const { promise: synced, resolve } = Promise.withResolvers<void>();
  const followAll = () => Promise.all(allKinds.map((kind) => followKind(stage, kind, resolve)));
  const done = addClasses(stage).then(() => Promise.all([followAll(), heartbeats(stage)]));
  return { synced, done, ...switches(stage) }; // Synced: every informer has listed once.
}
function machineOf(stage: Stage, name: string): Machine {
  const machine = stage.machines.get(name) ?? newMachine(name);
  stage.machines.set(name, machine);
  return machine;
}
/** They take effect at once, the requests that follow from them do not. */
function switches(stage: Stage) {
  const { machines, lanes, view, world } = stage;
  const set = (name: string, change: Partial<Machine>): void => {
    Object.assign(machineOf(stage, name), change);
    lanes.machine(name);
    stage.podsOn.get(name)?.forEach(lanes.pod);
  };
  const off = (name: string, change: Partial<Machine> = {}): void => {
    for (const { boxes } of machineOf(stage, name).runs.values())
      for (const box of boxes.values()) exitBox(stage, box);
    set(name, { ...change, power: 'off' });
  };
  const revive = (name: string): void => {
    const { runs } = machineOf(stage, name);
    const at = world.uptime() + stage.options.startMs;
    for (const [uid, { boxes }] of runs) {
      if (!stage.alive.has(uid)) runs.delete(uid); // its object went meanwhile
      for (const box of boxes.values())
        if (box.startedAt === undefined) Object.assign(box, { next: 'start', at });
    }
    set(name, { power: 'on', leaving: false, removed: false });
  };
  const inPod = (namespace: string, name: string, change: (run: Run) => void): void => {
    const key = `${namespace}/${name}`;
    const pod = view.pods.get(key);
    const run = machines.get(pod?.spec.nodeName ?? '')?.runs.get(pod?.metadata.uid ?? '');
    if (!run) throw new Error(`no kubelet runs pod ${key}`);
    change(run);
    lanes.pod(key);
  };
  const drainShutdown = (name: string): void => {
    const message = 'Pod was terminated in response to imminent node shutdown.';
    for (const run of machineOf(stage, name).runs.values())
      run.end = { phase: 'Failed', reason: 'Terminated', message, disrupted: true };
    set(name, { leaving: true });
    void world.sleep(2000, stage.signal).then(() => machines.get(name)?.leaving && off(name));
  };
  return {
    kill: (node: string) => off(node), // The machine is off: its kubelet is silent.
    cutOff: (node: string) => set(node, { power: 'cut' }), // Out of reach: its containers go on.
    removeNode: (node: string) => off(node, { removed: true, registered: false }), // And its Node.
    revive, // Back from any of these.
    drainShutdown, // Graceful node shutdown, then off.
    /** Each container, once. */
    crash: (namespace: string, pod: string) =>
      inPod(namespace, pod, ({ boxes }) => {
        for (const box of boxes.values()) Object.assign(box, { next: 'stop', at: 0 });
      }),
    /** What its probe says. */
    setReady: (namespace: string, pod: string, ready: boolean) =>
      inPod(namespace, pod, (run) => (run.unready = !ready)),
    /** The kubelet ends the pod. 'Evicted' carries the eviction manager's condition. */
    fail: (namespace: string, pod: string, reason = 'Error') => {
      const disrupted = reason === 'Evicted';
      const message = disrupted ? 'The node was low on resource: memory.' : 'simulated';
      const phase = reason === 'Completed' ? 'Succeeded' : 'Failed';
      inPod(namespace, pod, (run) => (run.end = { phase, reason, message, disrupted }));
    },
  };
}

// ═══ HARNESS C · WORLDS · effects ═══════════════════════════════════════════════════════════════
// Three ways to be a World: newSim (virtual time, seeded chance, faults; nothing real is touched),
// serve + realWorld (the embedded server on loopback), startRealControlPlane (etcd and a real
// kube-apiserver). A sim's clock moves only when every promise has settled, so the same seed gives
// the same bytes. Not modelled: CPU time (code between two awaits takes none), bandwidth, and the
// connection that requests share: each fails alone, unless `cut` or `down` says otherwise.

/** What can befall one request: the chance that it lands all the same, and what its sender sees. A
 *  number is the status of a server that did nothing; 404 is a proxy's that does not find it. */
type Fate = { lands: number; error?: string; reason?: string };
const mishapTable = {
  reset: { lands: 0, error: 'read ECONNRESET' },
  lost: { lands: 1, error: 'read ECONNRESET' },
  hang: { lands: 0.5, error: 'deadline exceeded' }, // No answer until then.
  garbage: { lands: 0, error: 'the answer is not JSON' },
  'crash-before': { lands: 0, error: 'dead' }, // The sender dies.
  'crash-after': { lands: 1, error: 'dead' },
  404: { lands: 0, reason: 'no backend' },
  429: { lands: 0, reason: 'TooManyRequests' },
  500: { lands: 0, reason: 'InternalError' },
  503: { lands: 0, reason: 'ServiceUnavailable' },
  504: { lands: 0.5, reason: 'Timeout' },
} satisfies Readonly<Record<string | number, Fate>>;
type Mishap = keyof typeof mishapTable;
/** Read at every use, so a test may change them at any time. Nothing set, nothing wrong. */
interface Faults {
  latencyMs?: readonly [least: number, most: number]; // each way
  decide?: (request: ApiRequest, index: number) => Mishap | undefined; // exact placement
  chance?: readonly (readonly [Mishap, number])[]; // per request
  cut?: boolean; // partition: requests hang, streams fall silent and break after 30 s
  deaf?: boolean; // the same for streams only
  frozen?: ReadonlySet<string>; // resources (plural) whose events are held back while in the set
  lagMs?: Readonly<Record<string, number>>; // extra delay of events, by resource
  replay?: number; // chance per event that it comes again within 2 s, after newer ones
  expired?: number; // chance per new stream to be refused with 410
  clockMs?: number; // error of the wall clock
}
interface Sent extends Record<'who' | 'method' | 'path', string> {
  readonly at: number;
  readonly status: number; // 0: no answer reached the sender.
  readonly isLate?: boolean; // Its sender had ended.
}
type Told = { at: number; who: string; level: string; message: string; fields?: unknown };
type SimProcess = ReturnType<typeof newProcess>;
function newProcess(who: string, given: Faults | undefined, random: () => number) {
  return {
    ...{ who, random, faults: given ?? ({} as Faults) },
    isCalm: given === undefined, // No faults were given, so none can be set later.
    listening: new Set<() => void>(), // Each ends one.
    alive: true,
    suspendedUntil: 0,
    sent: 0, // Requests so far: the index that `decide` is given.
  };
}
/** `due` is `at` as it was set, before its process was suspended. Of no process: network, test. */
type Due = Record<'at' | 'due' | 'order', number>;
type Timer = Due & { process: SimProcess | undefined; fire: () => void };
interface Stream {
  readonly process: SimProcess;
  readonly cursor: WatchCursor;
  readonly resource: string;
  readonly on: (event: WatchEvent) => void;
  readonly settle: (outcome: ApiResponse | Error) => void;
  readonly held: WatchEvent[];
  onWire: number; // batches of events; the stream ends after the last one
  lastAt: number; // events of one stream keep their order
  silentSince: number | undefined;
}
/** Of the timers the next one is the last. */
type Clockwork = { sim: Sim; timers: Timer[]; streams: Set<Stream>; clock: number; order: number };
/** mulberry32. Each process draws from its own, so one's draws do not shift another's. */
function newRandom(seed: number, name = ''): () => number {
  let state = seed | 0;
  for (let i = 0; i < name.length; i++) state = Math.imul(state ^ name.charCodeAt(i), 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

// ── Virtual time ────────────────────────────────────────────────────────────────────────────────
function after(works: Clockwork, ms: number, process: Timer['process'], fire: () => void): void {
  const at = works.clock + Math.max(0, ms);
  pushTimer(works.timers, { at, due: at, order: works.order++, process, fire });
}
function pushTimer(timers: Timer[], timer: Timer): void {
  let [from, to] = [0, timers.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    const { at, due, order } = timers[middle]!;
    if ((timer.at - at || timer.due - due || timer.order - order) < 0) from = middle + 1;
    else to = middle;
  }
  timers.splice(from, 0, timer);
}
/** Fires one timer after the other, unless its process is dead, or suspended (then it comes later).
 *  One timer per immediate: every promise has settled before the clock moves. */
async function runClock(works: Clockwork, until: number, holds?: () => boolean): Promise<boolean> {
  for (;;) {
    await new Promise(setImmediate);
    works.sim.afterStep?.();
    if (holds?.()) return true;
    const next = works.timers.at(-1);
    if (!next || next.at > until) {
      works.clock = until;
      return !holds;
    }
    works.timers.pop();
    if (next.process?.alive === false) continue;
    works.clock = Math.max(works.clock, next.at);
    const restMs = (next.process?.suspendedUntil ?? 0) - works.clock;
    if (restMs > 0) pushTimer(works.timers, { ...next, at: works.clock + restMs });
    else next.fire();
  }
}
const abortions = new WeakMap<AbortSignal, Set<() => void>>();
const all = ({ target }: Event): void => abortions.get(target as AbortSignal)?.forEach((f) => f());
/** One listener per signal, whatever the number of sleepers: an EventTarget searches its list. And
 *  none without sleepers: Node holds a signal of `any` for ever that somebody listens to. */
function onAbort(signal: AbortSignal | undefined, act: () => void): () => void {
  if (!signal) return () => undefined;
  const acts = abortions.get(signal) ?? new Set();
  if (acts.size === 0) signal.addEventListener('abort', all, { once: true });
  abortions.set(signal, acts.add(act));
  return () => {
    if (acts.delete(act) && acts.size === 0) signal.removeEventListener('abort', all);
  };
}
/** … for a process: with it all its listening ends, though its promises never settle. */
function listen({ listening }: SimProcess, signal: AbortSignal | undefined, act: () => void) {
  const off = onAbort(signal, act);
  listening.add(off);
  return () => (listening.delete(off), off());
}

// ── The simulated network ───────────────────────────────────────────────────────────────────────
function latency({ faults, random }: SimProcess): number {
  const [least, most] = faults.latencyMs ?? [1, 3];
  return least + Math.floor(random() * (most - least + 1));
}
function drawMishap(request: ApiRequest, process: SimProcess): Mishap | undefined {
  const { faults, random } = process;
  const decided = faults.decide?.(request, process.sent++) ?? (faults.cut ? 'hang' : undefined);
  return decided ?? faults.chance?.find(([, chance]) => random() < chance)?.[0];
}
/** Lets a request land, and puts what it wrote on the streams. */
function land({ sim }: Clockwork, who: string, request: ApiRequest): ServerAnswer {
  const { method, path, body, contentType = 'application/json' } = request;
  const headers = { authorization: `Bearer ${who}`, 'content-type': contentType };
  const { revision } = sim.state;
  const answer = handle(sim.state, { method, path, headers, body }, sim.now());
  if (sim.state.revision !== revision) sim.wake();
  return answer;
}
function simSend(works: Clockwork, process: SimProcess, request: ApiRequest): Promise<ApiResponse> {
  const { sim } = works;
  const { method, path, timeoutMs = 15_000 } = request;
  const { who, random, faults } = process;
  const deadline = works.clock + timeoutMs;
  const mishap = drawMishap(request, process);
  const { lands, error, reason }: Fate = mishap === undefined ? { lands: 1 } : mishapTable[mishap];
  return new Promise((resolve, reject) => {
    const arrive = (): void => {
      if (!process.alive && random() < 0.5) return; // it was on the wire when its sender died
      const isCut = sim.down || (mishap === 'hang' && faults.cut);
      const answer = random() < lands && !isCut ? land(works, who, request) : undefined;
      const why = sim.down && error !== 'dead' ? 'connect ECONNREFUSED' : error;
      const reply = why ? undefined : reason ? refusal(Number(mishap), reason) : answer;
      const isLate = !process.alive;
      sim.requests.push({ at: works.clock, who, method, path, status: reply?.status ?? 0, isLate });
      if (why === 'dead') process.alive = false;
      const ms = mishap === 'hang' ? deadline - works.clock : latency(process);
      after(works, ms, process, () => (reply ? resolve(reply) : reject(new Error(why))));
    };
    after(works, latency(process), undefined, arrive);
  });
}
function refusal(status: number, reason: string): ApiResponse {
  const headers: Record<string, string> = status === 429 ? { 'retry-after': '1' } : {};
  return { status, headers, body: refusalOf(status, reason, 'simulated') };
}
/** What a watch that ends well has for an answer. */
const ENDED: ApiResponse = { status: 200, headers: {}, body: undefined };
type Watched = Parameters<World['watch']>;
function simWatch(works: Clockwork, process: SimProcess, ...[path, on, signal]: Watched) {
  const { sim, streams } = works;
  const { faults, random, who } = process;
  return new Promise<ApiResponse>((resolve, reject) => {
    let stream: Stream | undefined;
    const settle = (outcome: ApiResponse | Error): void => {
      if (!process.alive) return;
      off();
      if (stream) streams.delete(stream);
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    const off = listen(process, signal, () => settle(ENDED));
    const later = (outcome: ApiResponse | Error, ms = latency(process)): void =>
      after(works, ms, process, () => settle(outcome));
    const arrive = (): void => {
      if (signal.aborted) return;
      const tell = (status: number): unknown =>
        sim.requests.push({ at: works.clock, who, method: 'WATCH', path, status });
      if (sim.down || faults.cut || faults.deaf) tell(0);
      if (sim.down) return later(new Error('connect ECONNREFUSED'));
      if (faults.cut || faults.deaf) return later(new Error('no answer to a ping'), 30_000);
      const expires = faults.expired !== undefined && random() < faults.expired;
      const asked = { method: 'GET', path } as const;
      const answer: ServerAnswer = expires ? refusal(410, 'Expired') : land(works, who, asked);
      tell(answer.status);
      if (!answer.watch) return later(answer);
      const resource = path.replace(/\?.*/, '').replace(/.*\//, '');
      const rest = { held: [], onWire: 0, lastAt: 0, silentSince: undefined };
      const opened = { process, cursor: answer.watch, resource, on, settle, ...rest };
      streams.add((stream = opened));
      pump(works, opened);
      ping(works, opened);
    };
    after(works, latency(process), process, arrive);
  });
}
/** Puts a stream's news on the wire. They arrive in order, after latency and lag. */
function pump(works: Clockwork, stream: Stream): void {
  const { cursor, process, resource } = stream;
  if (!process.alive) works.streams.delete(stream);
  if (cursor.ended || !works.streams.has(stream)) return;
  const events = nextEvents(works.sim.state, cursor, works.sim.now());
  if (events.length === 0 && !cursor.ended) return;
  const lagMs = process.faults.lagMs?.[resource] ?? 0;
  stream.lastAt = Math.max(stream.lastAt, works.clock + latency(process) + lagMs);
  stream.onWire++;
  after(works, stream.lastAt - works.clock, process, () => {
    stream.onWire--;
    stream.held.push(...(events as WatchEvent[]));
    deliver(works, stream);
  });
}
function deliver(works: Clockwork, stream: Stream): void {
  const { held, process, on, cursor, resource, settle } = stream;
  const { cut, deaf, frozen, replay = 0 } = process.faults;
  const isOpen = (): boolean => works.streams.has(stream);
  if (cut || deaf || frozen?.has(resource) || !isOpen()) return;
  for (const event of held.splice(0)) {
    on(event);
    if (replay > 0 && event.type !== 'ERROR' && process.random() < replay)
      after(works, process.random() * 2000, process, () => isOpen() && on(event));
  }
  if (cursor.ended && stream.onWire === 0) settle(ENDED);
}
/** Wakes a stream for bookmarks and its end; a silent one breaks, as by the client's ping. */
function ping(works: Clockwork, stream: Stream): void {
  const { cursor, process, held, settle } = stream;
  const { clock, sim } = works;
  if (!works.streams.has(stream)) return;
  if (!process.faults.cut && !process.faults.deaf) stream.silentSince = undefined;
  else stream.silentSince ??= clock;
  if (clock - (stream.silentSince ?? clock) >= 25_000)
    return settle(new Error('no answer to a ping'));
  if (sim.now() >= cursor.wakeAt) pump(works, stream);
  if (held.length > 0 || cursor.ended) deliver(works, stream);
  const wakeMs = Math.min(process.isCalm ? Infinity : 1000, cursor.wakeAt - sim.now());
  after(works, Math.max(1, wakeMs), process, () => ping(works, stream));
}
function simWorld(works: Clockwork, process: SimProcess): World {
  const { who, faults, random } = process;
  const { sim } = works;
  return {
    now: () => sim.now() + (faults.clockMs ?? 0),
    uptime: () => works.clock,
    random,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const wake = (): void => (off(), resolve());
        const off = listen(process, signal, () => process.alive && wake());
        if (signal?.aborted) wake();
        else after(works, ms, process, wake);
      }),
    send: (request) => simSend(works, process, request),
    watch: (...watched) => simWatch(works, process, ...watched),
    log: (level, message, fields) =>
      void sim.logs.push({ at: works.clock, who, level, message, ...(fields && { fields }) }),
  };
}
const typeOf = (method: Method): string => (method === 'PATCH' ? MERGE_PATCH : 'application/json');
/** A world of its own: one API server, any number of processes, one clock, one seed. */
type Sim = ReturnType<typeof newSim>;
function newSim(seed: number, crds: readonly unknown[] = []) {
  const startAt = Date.UTC(2026, 0, 1);
  const processes = new Map<string, SimProcess>();
  let isDown = false;
  const sim = {
    state: newApiServer(crds, seed, startAt),
    requests: [] as Sent[], // In the order of their arrival.
    logs: [] as Told[],
    afterStep: undefined as (() => void) | undefined, // Invariants; what it throws, run() throws.
    get down(): boolean {
      return isDown;
    },
    /** The API server is away, connections are refused, streams break. */
    set down(value) {
      isDown = value;
      const broken = new Error('read ECONNRESET');
      if (isDown) for (const { settle } of works.streams) settle(broken);
    },
    uptime: (): number => works.clock, // Virtual ms since the start.
    now: (): number => startAt + works.clock,
    /** A new process. After kill() the same name may be used for its successor. */
    world: (who: string, faults?: Faults): World => {
      const process = newProcess(who, faults, newRandom(seed, `${who} ${works.order}`));
      processes.set(who, process);
      return simWorld(works, process);
    },
    /** It never runs again: its sleeps, requests and streams do not settle. */
    kill: (who: string): void => {
      const process = processes.get(who);
      if (process) process.alive = false;
      for (const off of process?.listening ?? []) off();
      process?.listening.clear();
    },
    /** It does nothing for so long, then goes on as if nothing had been (SIGSTOP, SIGCONT). */
    suspend: (who: string, ms: number): void => {
      const process = processes.get(who);
      if (process) process.suspendedUntil = Math.max(process.suspendedUntil, works.clock + ms);
    },
    /** A request of the test itself: lands at once. */
    api: (method: Method, path: string, body?: unknown, type = typeOf(method)): ServerAnswer =>
      land(works, 'system:admin', { method, path, body, contentType: type }),
    /** Every stream ends cleanly, as before a restart of the API server. */
    hangUp: (): void => works.streams.forEach(({ settle }) => settle(ENDED)),
    /** Tells the streams after the test changed `state` itself (compact, restoreState). */
    wake: (): void => works.streams.forEach((stream) => pump(works, stream)),
    at: (ms: number, act: () => void): void => after(works, ms, undefined, act),
    /** Runs for so many ms; or until it holds (true) or `limitMs` have passed (false). */
    run: (until: number | (() => boolean), limitMs = 3_600_000): Promise<boolean> =>
      typeof until === 'number'
        ? runClock(works, works.clock + until)
        : runClock(works, works.clock + limitMs, until),
  };
  const works: Clockwork = { sim, timers: [], streams: new Set(), clock: 0, order: 0 };
  return sim;
}

// ── The embedded server on loopback, in real time ───────────────────────────────────────────────
type Served = Awaited<ReturnType<typeof serve>>;
async function serve(state: ApiState) {
  const watches = new Map<WatchCursor, Out>();
  const feed = (): void => {
    for (const [cursor, out] of watches) {
      for (const event of nextEvents(state, cursor, Date.now()))
        out.write(`${JSON.stringify(event)}\n`);
      if (cursor.ended) out.end();
    }
  };
  const timer = setInterval(feed, 500); // For bookmarks, and watches whose time is over.
  const answerIt = ({ method = 'GET', url = '/', headers }: In, body: unknown, out: Out): void => {
    const { revision } = state;
    const request = { method, path: url, headers: headers as Labels, body };
    const { watch, ...answer } = handle(state, request, Date.now());
    if (state.revision !== revision) feed();
    out.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers });
    if (!watch) return void out.end(JSON.stringify(answer.body ?? null));
    watches.set(watch, out);
    out.flushHeaders();
    out.on('close', () => watches.delete(watch));
    feed();
  };
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, out) => {
    const isJson = /json|^$/.test(request.headers['content-type'] ?? '');
    const read = readText(request).then((raw) => (isJson ? JSON.parse(raw || 'null') : raw));
    read.then(
      (body) => answerIt(request, body, out),
      () => out.destroy(), // The client went, or sends what is not JSON.
    );
  });
  const { url, ...open } = await opened(server);
  const close = async (): Promise<void> => {
    clearInterval(timer);
    watches.clear();
    await open.close();
  };
  return { url, kubeconfigPath: writeKubeconfig({ url, token: 'admin' }), close };
}
async function readText(stream: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  return text;
}

// ── Real time ───────────────────────────────────────────────────────────────────────────────────
/** `ca` is PEM; with https and without it the certificate is not checked. */
type Access = Readonly<{ url: string; token: string; ca?: string }>;
/** One context, which has the name of its namespace. */
const configOf = (
  server = 'http://127.0.0.1:1',
  user: object = { token: 'operator' },
  more: object = {},
  name = 'default',
): Raw => ({
  'current-context': name,
  contexts: [{ name, context: { cluster: name, user: name, namespace: name } }],
  users: [{ name, user }],
  clusters: [{ name, cluster: { server, ...more } }],
});
const trusting = (ca = ''): object => ({ 'certificate-authority-data': btoa(ca) });
function writeKubeconfig({ url, token, ca }: Access): string {
  return newDrawer().put('kubeconfig', configOf(url, { token }, ca ? trusting(ca) : {}));
}
/** The operator's own World, for actors and tests. */
function realWorld({ url: server, token, ca }: Access): World {
  const trust = ca ? trusting(ca) : { 'insecure-skip-tls-verify': true };
  return op.realWorld(op.newConfig({ server, ...trust }, { token }), none);
}

// ── A real control plane ────────────────────────────────────────────────────────────────────────
type ControlPlane = Awaited<ReturnType<typeof startRealControlPlane>>;
/** The folder with etcd and kube-apiserver, if one is named: it takes a quiet machine. */
function findAssets(): string | undefined {
  const folder = process.env.KUBEBUILDER_ASSETS ?? '';
  return ['etcd', 'kube-apiserver'].every((name) => fs.existsSync(join(folder, name)))
    ? folder
    : undefined;
}
/** etcd and kube-apiserver only: the actors are the rest. Nothing but loopback is listened on. */
async function startRealControlPlane(assets: string) {
  const folder = fs.mkdtempSync(join(tmpdir(), 'statefulcluster-real-'));
  const [etcdPort, peerPort, port] = await freePorts();
  const [etcdUrl, url] = [`http://127.0.0.1:${etcdPort}`, `https://127.0.0.1:${port}`];
  const token = 'admin-token';
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  fs.writeFileSync(join(folder, 'sa.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  fs.writeFileSync(join(folder, 'sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
  const tokens = `${token},admin,1,"system:masters"\nnobody,nobody,2\n`;
  fs.writeFileSync(join(folder, 'tokens.csv'), tokens, { mode: 0o600 });
  const run = (name: string, flags: readonly string[]): ChildProcess => {
    const out = fs.openSync(join(folder, `${name}.log`), 'a');
    const args = flags.map((flag) => `--${flag}`);
    return spawn(join(assets, name), args, { cwd: folder, stdio: ['ignore', out, out] });
  };
  const listens = [`listen-client-urls=${etcdUrl}`, `advertise-client-urls=${etcdUrl}`];
  const peers = `listen-peer-urls=http://127.0.0.1:${peerPort}`;
  const etcd = run('etcd', ['data-dir=etcd', 'unsafe-no-fsync', ...listens, peers]);
  const world = realWorld({ url, token });
  const start = async (): Promise<ChildProcess> => {
    const own = [`etcd-servers=${etcdUrl}`, `secure-port=${port}`];
    const child = run('kube-apiserver', [...own, ...APISERVER_FLAGS]);
    for (let tries = 0; tries < 600 && child.exitCode === null; tries++) {
      const ready = await world.send({ method: 'GET', path: '/api' }).catch(() => undefined);
      if (ready?.status === 200) return child;
      await world.sleep(100);
    }
    throw new Error(`kube-apiserver is not ready; see ${folder}/kube-apiserver.log`);
  };
  const apiserver = await start();
  const ca = fs.readFileSync(join(folder, 'certs/apiserver.crt'), 'utf8'); // its own authority
  const kubeconfigPath = writeKubeconfig({ url, token, ca });
  const restart = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
    await endProcess(plane.apiserver, signal);
    plane.apiserver = await start();
  };
  const stop = async (): Promise<void> => {
    await Promise.all([plane.apiserver, etcd].map((child) => endProcess(child, 'SIGKILL')));
    fs.rmSync(folder, { recursive: true, force: true });
  };
  const plane = { url, token, ca, kubeconfigPath, etcdUrl, etcd, apiserver, restart, stop };
  return plane;
}
/** Nobody here makes accounts in namespaces. The last two let a SIGTERM not wait for watches. */
const APISERVER_FLAGS = `bind-address=127.0.0.1 advertise-address=127.0.0.1
  endpoint-reconciler-type=none cert-dir=certs token-auth-file=tokens.csv authorization-mode=RBAC
  service-account-key-file=sa.pub service-account-signing-key-file=sa.key
  service-account-issuer=https://kubernetes.default.svc service-cluster-ip-range=10.96.0.0/16
  enable-admission-plugins=ResourceQuota disable-admission-plugins=ServiceAccount
  max-requests-inflight=3000 max-mutating-requests-inflight=1500
  shutdown-send-retry-after=true shutdown-watch-termination-grace-period=1s`.split(/\s+/);
async function endProcess(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await new Promise((resolve) => child.once('exit', resolve));
}
/** Three at once, so that they differ. */
async function freePorts(): Promise<string[]> {
  const open = await Promise.all([1, 2, 3].map(() => opened(net.createServer())));
  for (const { close } of open) await close();
  return open.map(({ url }) => new URL(url).port);
}

// ═══ DEMO · effects ═════════════════════════════════════════════════════════════════════════════
// `start`: the same example as a StatefulSet, left, and as a StatefulCluster, right; then a node
// dies. The embedded control plane and the actors are in this process, the real operator is its
// own. What is drawn is read from the API server, what is claimed was measured in this very run.

type Play = Awaited<ReturnType<typeof stage>>;
type Lines = readonly string[];
const PARTIES = ['StatefulSet', 'StatefulCluster'] as const;
type Party = (typeof PARTIES)[number];
/** A pod with the claim that is on its node, or a claim without such a pod. */
interface Sighting {
  readonly name: string;
  readonly node: string; // '' while the pod has none.
  readonly is: keyof typeof GLYPHS;
  readonly claim: op.Claim | undefined;
  readonly words: string; // What kubelet or scheduler said of the pod last.
}

const { gray, cyan, bold, red, green, yellow } = kleur;
const GLYPHS = {
  Pending: ['○', yellow],
  starting: ['◐', yellow],
  Ready: ['●', green],
  unreachable: ['◌', red],
  Terminating: ['×', red],
  'no pod': [' ', gray],
} as const;
const TITLE = 'the real operator, on a control plane in memory';
const NODES = ['node-1', 'node-2', 'node-3', 'node-4'];
const SILENCE_MS = 2000; // After which the node controller says NotReady (Kubernetes: 40 s).
/** For both: liveness.nodeUnreachableSeconds, and the toleration of every pod (both 300). */
const GRACE = 3;
const EXAMPLE = CODER.replace('spec:', `spec:\n  liveness: { nodeUnreachableSeconds: ${GRACE} }`);
function asStatefulSet(): Raw {
  const { spec, metadata } = coderCluster();
  const labels = { app: 'coder-set' };
  const key = 'node.kubernetes.io/unreachable';
  const patience = { key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: GRACE };
  const pod = { ...spec.template.spec, tolerations: [patience] };
  const template = { metadata: { labels }, spec: pod };
  const own = { selector: { matchLabels: labels }, serviceName: 'coder', template };
  return { apiVersion: 'apps/v1', kind: 'StatefulSet', metadata, spec: { ...spec, ...own } };
}

// ── What there is to see ────────────────────────────────────────────────────────────────────────
const nodeNamed = ({ state }: Play, name: string): op.Node =>
  nodeOf(objectOf(state, 'nodes', '', name) ?? {});
const coderOf = ({ state }: Play, party: Party): Raw | undefined =>
  objectOf(state, `${party}s`.toLowerCase(), 'default', 'coder');

function sightings(play: Play, party: Party): readonly Sighting[] {
  const isIts = ({ meta: { labels } }: { readonly meta: Meta }): boolean =>
    party === 'StatefulSet' ? labels['app'] === 'coder-set' : labels[MARK.cluster] === 'coder';
  const claims = objectsOf(play.state, 'persistentvolumeclaims').map(claimOf).filter(isIts);
  const selected = ({ meta }: op.Claim): string => meta.annotations[MARK.selectedNode] ?? '';
  const pods = objectsOf(play.state, 'pods').map(podOf).filter(isIts);
  const found = pods.map((pod): Sighting => {
    const claim = claims.find(({ meta }) => meta.name === pod.claims[0]);
    const node = pod.node || (pod.lastWords || !claim ? '' : selected(claim));
    const isSilent = pod.node && !nodeNamed(play, node).ready;
    const runs = isSilent ? 'unreachable' : pod.ready ? 'Ready' : pod.node ? 'starting' : 'Pending';
    const is = pod.meta.deletedMs ? 'Terminating' : runs;
    return { name: pod.meta.name, node, is, claim: node ? claim : undefined, words: pod.lastWords };
  });
  for (const claim of claims) {
    const [name, node] = [claim.meta.name.replace('data-', ''), selected(claim)];
    const isBare = node && !found.some((one) => one.claim === claim);
    if (isBare) found.push({ name, node, is: 'no pod', claim, words: '' });
  }
  return found;
}
const isKept = ({ claim }: Sighting): boolean => claim?.meta.labels[MARK.retired] !== undefined;
const those = (play: Play, party: Party, is: Sighting['is']): readonly Sighting[] =>
  sightings(play, party).filter((one) => one.is === is);
const isForTouch = ({ stays, endMs }: Play): boolean => stays && endMs > 0;
const has = (play: Play, party: Party, is: Sighting['is'], count = 1): boolean =>
  those(play, party, is).length >= count;
/** The pod that came for the one on the node that died. */
const heirOf = ({ state, lost: { identity } }: Play): Pod | undefined =>
  objectsOf(state, 'pods')
    .map(podOf)
    .find(({ meta }) => meta.annotations[MARK.replaces]?.startsWith(`${identity} `));
/** A party's situation in plain words. */
function wordsFor(play: Play, party: Party): string {
  const all = sightings(play, party);
  const heir = party === 'StatefulSet' ? undefined : heirOf(play);
  const [old, reason] = heir?.meta.annotations[MARK.replaces]?.split(' ') ?? [];
  const came = `${heir?.meta.name} came for it, on ${heir?.node || 'no node yet'}.`;
  const { msg, message } = play.operator.said.findLast((line) => line['cluster']) ?? {};
  if (heir && isForTouch(play)) return `${msg}: ${message}`; // The operator itself.
  if (heir) return `coder-${old} was given up (${reason}), its claim is kept. ${came}`;
  const trouble = all.find((one) => one.is !== 'Ready' && !isKept(one));
  const { is = 'Ready', name, node, words } = trouble ?? {};
  const silence = `${node} must say that it has ended, and says nothing`;
  return {
    starting: party === 'StatefulSet' ? `${name} starts, then the next.` : 'All start at once.',
    unreachable: `${name} has ${GRACE} s to come back (300 s by default).`,
    Terminating: `${name} is Terminating: ${silence}. Until then there is no new ${name}.`,
    Pending: `${name} is Pending: ${words || 'its disk is made'}`,
    'no pod': '',
    Ready: all.length > 0 ? 'All are Ready.' : '',
  }[is];
}

// ── The picture ─────────────────────────────────────────────────────────────────────────────────
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
/** So wide, whatever it was. */
function fitted(text: string, width: number): string {
  const bare = stripVTControlCharacters(text);
  if (bare.length <= width) return text + ' '.repeat(width - bare.length);
  return `${bare.slice(0, Math.max(0, width - 1))}…`;
}
const folded = (text: string, width: number): Lines =>
  text.match(new RegExp(`\\S.{0,${width - 1}}(?=\\s|$)`, 'g')) ?? [];

type Frame = Readonly<{ half: number; height: number; isDead?: boolean }>;
/** A box of so many lines, in one part or two; what does not fit in is counted. */
function boxed(title: string, parts: readonly Lines[], { half, height, isDead }: Frame): Lines {
  const paint = isDead ? red : gray;
  const [dash, bar] = isDead ? ['╌', paint('╎')] : ['─', paint('│')];
  const width = parts.length > 1 ? half : 2 * half + 1;
  const cell = (lines: Lines, i: number): string => {
    const more = i === height - 1 && lines.length > height ? ` +${lines.length - height}` : '';
    return fitted(` ${lines[i] ?? ''}`, width - more.length) + more;
  };
  const row = (_: unknown, i: number): string =>
    bar + parts.map((lines) => cell(lines, i)).join(bar) + bar;
  const edges = parts.map(() => dash.repeat(width));
  const top = `╭${edges.join('┬')}╮`.replace(dash.repeat(title.length + 3), `${dash} ${title} `);
  return [paint(top), ...Array.from({ length: height }, row), paint(`╰${edges.join('┴')}╯`)];
}
function drawMember(one: Sighting, half: number): string {
  const [glyph, usual] = GLYPHS[one.is];
  const [paint, mark, kept] = isKept(one) ? [gray, '▫', 'kept'] : [usual, '▪', 'data'];
  const claim = one.claim && cyan(`${mark} ${half > 55 ? one.claim.meta.name : kept}`);
  const word = one.node ? one.is.padEnd(11) : `${one.is}, no node`;
  return `${paint(`${glyph} ${one.name.padEnd(16)} ${word}`)} ${claim ?? ''}`;
}
function drawNodes(play: Play, half: number, height: number): Lines {
  const both = PARTIES.map((party) => sightings(play, party));
  const on = (name: string) =>
    both.map((one) => one.filter((s) => s.node === name).map((s) => drawMember(s, half)));
  const boxes = NODES.map((name) => {
    const { ready, unschedulable } = nodeNamed(play, name);
    const isOff = play.killMs > 0 && name === play.lost.node;
    const state = [isOff && 'no power', !ready && 'not Ready', unschedulable && 'cordoned'];
    const title = [name, ...state.filter(Boolean)].join(', ');
    return boxed(title, on(name), { half, height, isDead: isOff || !ready });
  });
  const roaming = on('').map(([first = '', ...more]) =>
    fitted(`  ${first}${more.length > 0 ? ` +${more.length}` : ''}`, half + 1),
  );
  return [...boxes.flat(), roaming.join('')];
}

/** What was measured, and what to type next. */
function drawEnd({ tookMs, endMs, killMs }: Play): Lines {
  const row = (what: string, left: string, right: string): string =>
    gray(what.padEnd(22)) + left.padEnd(20) + right;
  const { set, cluster, healed } = tookMs;
  const given = `(${seconds(SILENCE_MS + GRACE * 1000)} of it by settings)`;
  return [
    row('measured in this run', 'StatefulSet', 'StatefulCluster'),
    row('the first 3 Ready', seconds(set), seconds(cluster)),
    row('3 Ready again', `not in ${seconds(endMs - killMs)}`, `${seconds(healed)} ${given}`),
    gray('try it yourself'.padEnd(22)) + bold('npm start -- --stay'),
  ];
}
function drawInvitation(play: Play): Lines {
  const [one] = those(play, 'StatefulCluster', 'Ready');
  const node = path.relative('', process.execPath);
  return [
    'All of it stays up until Ctrl-C. In another terminal, in this folder:',
    `export KUBECONFIG=${play.served.kubeconfigPath}`,
    `alias op="${node} operator.ts"; op status --watch`,
    `kubectl get sts,stc,pods,pvc; kubectl delete pod ${one?.name}`,
    `op plan coder; kubectl scale stc coder --replicas 5; kubectl drain ${one?.node}`,
    `kubectl delete node ${play.lost.node}; kubectl delete pvc data-coder-1`,
  ];
}
function drawAll(play: Play, columns: number, rows: number): Lines {
  const half = Math.min(58, Math.floor((columns - 4) / 2));
  const width = 2 * half + 3;
  const spread = (left: string, ms: number, what = ''): string => {
    const right = ms > 0 ? seconds(ms) + what : '';
    return fitted(left, width - right.length) + gray(right);
  };
  const now = performance.now();
  const heads = PARTIES.map((party) => {
    const { replicas } = coderOf(play, party)?.['spec'] ?? {};
    const { length } = those(play, party, 'Ready');
    const count = replicas && (length < replicas ? red : green)(`${length} of ${replicas} Ready`);
    return fitted(`  ${bold(party)} coder  ${count ?? ''}`, half + 1);
  });
  const title = ` ${bold('StatefulCluster')}  ${gray(TITLE)}`;
  const darkMs = play.killMs && (play.endMs || now) - play.killMs;
  const waits = spread(cyan(`   ${play.waits}`), darkMs, ' without power');
  const long = new RegExp(`.{${width - 1}}(?=.)`, 'g'); // A shell joins them again.
  const invitation = drawInvitation(play).join('\n').replace(long, '$&\\\n').split('\n');
  const act = isForTouch(play) ? invitation : [` ${cyan('▸')} ${bold(play.tells)}`, waits];
  const top = [spread(title, now - play.bornMs), ...act];
  const height = rows < 37 ? 1 : 3;
  const left = rows - top.length - 10 - NODES.length * height; // For one box more, or two.
  const why = PARTIES.map((party) => folded(wordsFor(play, party), half - 2));
  const frame = { half, height: 4 };
  const boxes = left < 6 ? [] : [boxed('why', why, frame)];
  if (play.endMs > 0 && !play.stays) boxes.push(boxed('the end', [drawEnd(play)], frame));
  const below = boxes.slice(left < 12 ? -1 : 0).flat();
  const middle = drawNodes(play, half, height);
  return [...top.map((line) => fitted(line, width)), heads.join(''), ...middle, ...below];
}

/** Each line has its place, and is written when it has changed. */
function newScreen(size: Readonly<{ columns: number; rows: number }>, put: (text: string) => void) {
  let last: Lines = [];
  let shape = '';
  const at = (row: number): string => `\x1b[${row};1H`;
  const draw = (play: Play): void => {
    const { columns, rows } = size;
    const lines = drawAll(play, columns, rows - 1).slice(0, rows - 1);
    const isNew = shape !== (shape = `${columns} ${rows} ${lines.length}`);
    const isOld = (line: string, i: number): boolean => !isNew && line === last[i];
    const fresh = lines.map((line, i) => (isOld(line, i) ? '' : `${at(i + 1)}${line}\x1b[K`));
    const text = (isNew ? '\x1b[?25l\x1b[H\x1b[2J' : '') + fresh.join('');
    if (text) put(`\x1b[?2026h${text}${at(rows)}\x1b[?2026l`);
    last = lines;
  };
  return { draw, end: () => put(`${at(last.length)}\n\x1b[?25h`) };
}
/** The terminal, if it is one and large enough; the recording (asciicast v2), if it is wanted. */
function screensFor(cast: string) {
  const { stdout } = process;
  const screens: ReturnType<typeof newScreen>[] = [];
  const isLarge = stdout.isTTY && stdout.columns >= 80 && stdout.rows >= 24;
  if (isLarge && process.env['TERM'] !== 'dumb') {
    stdout.write('\n'.repeat(stdout.rows)); // What was there scrolls away.
    screens.push(newScreen(stdout, (text) => stdout.write(text)));
  }
  if (!cast) return screens;
  const fromMs = performance.now();
  const write = (line: unknown, flag = 'a'): void =>
    fs.writeFileSync(cast, `${JSON.stringify(line)}\n`, { flag });
  const about = { timestamp: Math.floor(Date.now() / 1000), env: { TERM: 'xterm-256color' } };
  write({ version: 2, width: 100, height: 30, ...about }, 'w');
  kleur.enabled ||= process.env['NO_COLOR'] === undefined;
  const put = (text: string): void => write([(performance.now() - fromMs) / 1000, 'o', text]);
  return [...screens, newScreen({ columns: 100, rows: 30 }, put)];
}

// ── The play ────────────────────────────────────────────────────────────────────────────────────
const applyExample = (play: Play): Promise<Raw> =>
  order(play, 'POST', clusterAt('default'), loadAllYaml(EXAMPLE)[0]);

/** Waits until `ask` has an answer, and says when that was; if it has words, for 30 s at most. */
async function awaitIt(play: Play, what: string, ask: (play: Play) => unknown): Promise<number> {
  const fromMs = performance.now();
  while (!ask(play)) {
    const waitedMs = performance.now() - fromMs;
    play.waits = what && `${what}: ${seconds(waitedMs)}`;
    play.stop.signal.throwIfAborted();
    if (play.died) throw new Error(`the operator ended: ${play.died}`);
    if (what && waitedMs > 30_000) throw new Error(`gave up after 30 s: ${what}`);
    await play.world.sleep(30, play.stop.signal);
  }
  play.waits = '';
  return performance.now();
}
async function perform(play: Play, plain: (...lines: Lines) => void): Promise<void> {
  const { tookMs, lost } = play;
  const pause = (ms: number, endMs = performance.now() + ms): Promise<number> =>
    awaitIt(play, '', () => performance.now() > endMs);
  const begin = (tells: string): Promise<number> => {
    plain('', `▸ ${(play.tells = tells)}`);
    return pause(1500);
  };
  const end = (ms: number): Promise<number> => {
    plain(...PARTIES.map((party) => `  ${`${party}:`.padEnd(17)}${wordsFor(play, party)}`));
    return pause(ms);
  };
  const cordon = (unschedulable: boolean | null): Promise<Raw> =>
    order(play, 'PATCH', '/api/v1/nodes/node-4', { spec: { unschedulable } });
  const isUp = (): boolean => play.operator.said.some(({ msg }) => msg === 'caches are synced');
  await awaitIt(play, 'the operator starts', isUp);

  const fromMs = await begin('It is applied as both (the StatefulSet controller is a model here).');
  await cordon(true);
  await order(play, 'POST', '/apis/apps/v1/namespaces/default/statefulsets', asStatefulSet());
  // So that each node has one of both.
  await awaitIt(play, 'coder-0 looks for a node', () => sightings(play, 'StatefulSet')[0]?.node);
  await applyExample(play);
  const cluster = (): boolean => has(play, 'StatefulCluster', 'Ready', 3);
  tookMs.cluster = (await awaitIt(play, 'three start at once', cluster)) - fromMs;
  const set = (is: Sighting['is'], count?: number) => () => has(play, 'StatefulSet', is, count);
  tookMs.set = (await awaitIt(play, 'three start, one by one', set('Ready', 3))) - fromMs;
  await end(1000);

  const [, left] = those(play, 'StatefulSet', 'Ready');
  const right = those(play, 'StatefulCluster', 'Ready').find(({ node }) => node === left?.node);
  if (!left || !right) throw new Error('no node has one of both');
  Object.assign(lost, { node: left.node, identity: right.name.replace('coder-', '') });
  await begin(`${lost.node} loses power, and with it ${left.name}, ${right.name} and their disks.`);
  await cordon(null);
  play.actors.kill(lost.node);
  play.killMs = performance.now();
  await awaitIt(play, 'the silence is noticed, in 2 s (by default 40)', set('unreachable'));
  await awaitIt(play, 'it may come back, for 3 s (by default 300)', set('Terminating'));
  const heals = (): unknown => heirOf(play)?.ready;
  tookMs.healed = (await awaitIt(play, 'a new member starts', heals)) - play.killMs;
  await end(2500);

  await begin(`Somebody looks: ${lost.node} is off. kubectl delete pod ${left.name} --force`);
  await order(play, 'DELETE', `${space}/pods/${left.name}`, { gracePeriodSeconds: 0 });
  const hangs = (): unknown => those(play, 'StatefulSet', 'Pending')[0]?.words;
  await awaitIt(play, 'its successor needs a node', hangs);
  play.endMs = await end(4000);
  if (set('Ready', 3)()) throw new Error('the StatefulSet is whole again, but how?');
  play.tells = `${left.name} waits for ${lost.node}, where its disk is.`;
  plain('', ...drawEnd(play));
}

/** Control plane, actors and operator; all of it ends with this process, however that ends. */
async function stage(program: Lines, stays: boolean, stop: AbortController) {
  const { state, served, rig } = await newSite();
  const { world } = rig; // The user with kubectl.
  const times = { startMs: 1200, provisionMs: 500, stopMs: 700, heartbeatMs: 400 };
  const options = { nodes: NODES, nodeGraceMs: SILENCE_MS, sets: true, ...times };
  const actors = startActors(world, options, stop.signal);
  actors.done.catch((error: unknown) => stop.abort(error));
  await actors.synced;
  const args = ['run', '--log', 'json', '--probe-addr', '0'];
  const operator = launchOf([...program, ...args, '--kubeconfig', served.kubeconfigPath]);
  const play = {
    ...{ state, served, world, actors, operator, stays, stop },
    bornMs: performance.now(),
    tells: 'One example twice: as a StatefulSet and as a StatefulCluster.', // The act on stage.
    waits: '', // What is waited for, and since when.
    ...{ killMs: 0, endMs: 0 }, // When the node died, when the end came.
    tookMs: { set: 0, cluster: 0, healed: 0 },
    lost: { node: '', identity: '' }, // What dies on the right.
    died: '', // Why the operator ended.
  };
  void operator.ended.then((end) => {
    play.died = operator.complaint.trim().split('\n')[0] || end;
  });
  return play;
}

async function show(play: Play, cast: string): Promise<void> {
  const screens = screensFor(cast);
  const isDrawn = screens.length > (cast ? 1 : 0);
  const plain = (...lines: Lines): void =>
    isDrawn ? undefined : console.log(stripVTControlCharacters(lines.join('\n')));
  const draw = (): void => screens.forEach((screen) => screen.draw(play));
  process.once('exit', () => screens.forEach((screen) => screen.end()));
  plain(`StatefulCluster: ${TITLE}`);
  setInterval(draw, 100);
  await perform(play, plain);
  draw();
  if (!play.stays) return;
  plain('', ...drawInvitation(play));
  await awaitIt(play, '', () => false);
}
async function smoke(play: Play, binary: string): Promise<void> {
  await applyExample(play);
  const ready = (): boolean => {
    const coder = coderOf(play, 'StatefulCluster');
    return coder !== undefined && isUp(coder as Seen);
  };
  await awaitIt(play, 'the example is not Ready', ready);
  console.log(`smoke: ${binary}: Ready after ${seconds(performance.now() - play.bornMs)}`);
}

/** `start [--stay] [--cast FILE]` and `smoke BINARY`; returns the exit code. */
async function demo([command = '', ...args]: Lines): Promise<number> {
  const stop = new AbortController();
  const halt = (): void => stop.abort(new Error('interrupted'));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, halt);
  process.stdout.on('error', () => process.exit(1)); // Whoever read it is gone.
  let play: Play | undefined;
  try {
    const options = { stay: { type: 'boolean' }, cast: { type: 'string' } } as const;
    const isSmoke = command === 'smoke';
    const { values, positionals } = parseArgs({ args, options, allowPositionals: isSmoke });
    const [binary = ''] = positionals;
    if (isSmoke && !binary) throw new Error('it wants the path of a binary');
    const program = binary ? [binary] : [process.execPath, OPERATOR];
    play = await stage(program, values.stay === true, stop);
    await (binary ? smoke(play, binary) : show(play, values.cast ?? ''));
    return 0;
  } catch (error) {
    if (play?.stays && play.endMs > 0 && stop.signal.aborted) return 0;
    console.error(`${command}: ${error instanceof Error ? error.message : String(error)}`);
    return 1;
  } finally {
    stop.abort();
    play?.operator.child.kill();
    await Promise.race([play?.operator.ended, play?.world.sleep(3000)]);
    await play?.served.close();
  }
}

// ═══ BENCH · effects ════════════════════════════════════════════════════════════════════════════
// `bench [--on embedded|real] [--only WORD] [--repeats N] [--rest SECONDS]`: each
// figure stands beside its limit, measured in the same run; medians of N (5). The control plane,
// the operator with a gauge in it, and this one are three processes. This one is the user, the
// observer, and the bare client, which has the operator's own client and the same bodies.

type Ground = Awaited<ReturnType<typeof newEmbeddedGround>>;
/** One row of the table. */
type Finding = ReturnType<typeof within>; // Its limit was measured in the same run.
type Bench = Readonly<{ repeats: number; restSeconds: number; say: (text: string) => void }>;
const quantileOf = (values: readonly number[], q: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ??
  NaN;
const medianOf = (values: readonly number[]): number => quantileOf(values, 0.5);
const inUnit = (value: number, unit: string): string => `${+value.toPrecision(3)} ${unit}`.trim();
/** The median, held against a fixed number. */
const within = (what: string, values: readonly number[], most: number, unit: string) => ({
  ...{ what, limit: '', target: `≤ ${most} ${unit}`.trim() },
  ...{ figure: inUnit(medianOf(values), unit), met: medianOf(values) <= most },
});
/** The median, held against the median of its limit. */
function against(
  [what, limit]: readonly [string, string],
  values: readonly number[],
  limits: readonly number[],
  most: number,
  unit: string,
): Finding {
  const ratio = medianOf(values) / medianOf(limits);
  return {
    ...{ what, target: `≤ ${most}×`, met: ratio <= most },
    figure: `${inUnit(medianOf(values), unit)}, ${ratio.toFixed(2)}×`,
    limit: `${limit} ${inUnit(medianOf(limits), unit)}`,
  };
}
const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Plays the rounds; what each measured, by its name. */
async function rounds<K extends string>(
  { repeats, say }: Bench,
  what: string,
  play: (round: number) => Promise<Record<K, number>>,
) {
  const rows: Record<K, number>[] = [];
  for (let round = 0; round < repeats; round++) {
    say(`${what}, ${round + 1} of ${repeats}`);
    rows.push(await play(round));
  }
  return (name: K): readonly number[] => rows.map((row) => row[name]);
}

// ── The gauge ───────────────────────────────────────────────────────────────────────────────────
/** Loaded into the operator's process before it: counts passes, reads its clocks. */
const GAUGE = `
import { createInterface } from 'node:readline';
let passes, busyMs;
function reset() {
  busyMs = 0;
  passes = {};
}
reset();
globalThis.gaugePass = (key) => {
  passes[key] = (passes[key] ?? 0) + 1;
};
/** How long this thread itself ran in its longest turn: what it waited for is the machine's. */
function watchLoop() {
  let cpu = process.threadCpuUsage();
  setInterval(() => {
    const { user, system } = process.threadCpuUsage(cpu);
    busyMs = Math.max(busyMs, (user + system) / 1000);
    cpu = process.threadCpuUsage();
  }, 1);
}
createInterface(process.stdin).on('line', (what) => {
  if (what === 'reset') reset();
  if (what === 'loop') watchLoop();
  if (what === 'gc') for (let i = 0; i < 4; i++) globalThis.gc();
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  const now = { cpuMs: (user + system) / 1000, rssMb: rss / 2 ** 20, heapMb: heapUsed / 2 ** 20 };
  console.log(JSON.stringify({ msg: 'gauge', ...now, passes, busyMs }));
});
process.stdin.unref();
`;
interface Gauge {
  readonly cpuMs: number; // User and system, since the start.
  readonly rssMb: number;
  readonly heapMb: number;
  readonly passes: Readonly<Record<string, number>>; // By cluster, since 'reset'.
  readonly busyMs: number; // Its longest turn, since 'loop'.
}
type Gauged = Awaited<ReturnType<typeof startGauged>>;

/** The bundle that is shipped, but for one line, so that a pass is counted when it ends. */
async function writeGauged(folder: string): Promise<void> {
  const build = [join(ROOT, 'build.mjs'), '--bundle'];
  await once(spawn(process.execPath, build, { stdio: ['ignore', 'ignore', 'inherit'] }), 'exit');
  const text = fs.readFileSync(join(ROOT, 'dist/statefulcluster.cjs'), 'utf8');
  const head = 'async function reconcile(o, key) {';
  if (!text.includes(head)) throw new Error('the gauge does not find reconcile');
  const end = 'finally { globalThis.gaugePass(key); }';
  const counted = `${head} try { await pass(o, key); } ${end} }\nasync function pass(o, key) {`;
  fs.writeFileSync(join(folder, 'operator.cjs'), text.replace(head, counted));
  fs.writeFileSync(join(folder, 'gauge.mjs'), GAUGE);
}
/** Without the cache of compiled code, which no user has. */
const UNCACHED = ['env', '-u', 'NODE_COMPILE_CACHE', process.execPath];
/** The operator as its own process, with the gauge; resolves when its caches are synced. */
async function startGauged({ folder, kubeconfig }: Ground, ...scope: readonly string[]) {
  const bell = newBell();
  const loaded = ['gauge.mjs', 'operator.cjs'].map((name) => join(folder, name));
  const gauge = ['--expose-gc', '--import', ...loaded];
  const run = [...runArgs(kubeconfig), '--log', 'json', '--leader-elect-namespace', 'default'];
  const program = launchOf([...UNCACHED, ...gauge, ...run, ...scope], bell.ring);
  const { child, said, ended } = program;
  const linesOf = (msg: string): readonly Raw[] => said.filter((line) => line['msg'] === msg);
  const at = (msg: string): number => Date.parse(linesOf(msg)[0]?.['time']);
  const ask = async (what: 'read' | 'reset' | 'loop' | 'gc'): Promise<Gauge> => {
    const { length } = linesOf('gauge');
    child.stdin.write(`${what}\n`);
    await bell.until(what, () => (linesOf('gauge').length > length ? '' : 'no answer'));
    return linesOf('gauge').at(-1) as unknown as Gauge;
  };
  const stop = (): Promise<string> => (child.kill(), ended);
  const synced = bell.until('the operator', () => (at('caches are synced') ? '' : 'not synced'));
  const early = ended.then(() =>
    Promise.reject(new Error(`the operator ended: ${program.complaint}`)),
  );
  await Promise.race([synced, early]);
  return { at, ask, stop };
}
/** No pass ended for three seconds: whatever is written is written in one. */
async function untilQuiet(operator: Gauged): Promise<Gauge> {
  const from = performance.now();
  for (let still = 0, last = await operator.ask('read'); ;) {
    if (performance.now() - from > 240_000) throw new Error(`no quiet: ${JSON.stringify(last)}`);
    await rest(500);
    const now = await operator.ask('read');
    still = sumOf(now.passes) === sumOf(last.passes) ? still + 1 : 0;
    if (still === 6) return now;
    last = now;
  }
}
async function startQuiet(ground: Ground): Promise<Gauged> {
  const operator = await startGauged(ground, '-A');
  await untilQuiet(operator);
  return operator;
}

// ── Grounds: control planes with what is put on them ────────────────────────────────────────────
/** Serves the embedded control plane until its stdin ends; its first line says where. */
async function serveAlone(): Promise<number> {
  const served = await serve(newApiServer(crdOnly(), 1, Date.now()));
  console.log(JSON.stringify(served));
  await once(process.stdin.resume(), 'end');
  await served.close();
  return 0;
}
/** `folder`: where the gauged operator is. */
async function newEmbeddedGround(folder: string) {
  const bell = newBell();
  const serving = ['--max-old-space-size=4096', import.meta.filename, 'serve'];
  const { child, said, ended } = launchOf([process.execPath, ...serving], bell.ring);
  await bell.until('the embedded server', () => (said.length > 0 ? '' : 'not there'));
  const { url, kubeconfigPath: kubeconfig } = said[0] as unknown as Served;
  const stop = async (): Promise<void> => void (child.kill(), await ended);
  const access = { url, token: 'admin' };
  return { access, kubeconfig, folder, world: realWorld(access), stop };
}
async function newRealGround(folder: string) {
  await startPlane();
  const { kubeconfigPath: kubeconfig, stop } = plane;
  const ground = { access: plane, kubeconfig, folder, world: realWorld(plane), stop };
  for (const body of crdOnly()) await order(ground, 'POST', crdsAt, body);
  await clustersAreServed();
  return ground;
}
const newNamespace = (ground: Ground, name: string): Promise<Raw> =>
  order(ground, 'POST', '/api/v1/namespaces', { metadata: { name } });
/** `work` for each item, at most `most` at a time. */
async function inFlight<T>(
  items: readonly T[],
  most: number,
  work: (item: T, i: number) => Promise<unknown>,
): Promise<void> {
  const entries = items.entries();
  const worker = async (): Promise<void> => {
    for (const [i, item] of entries) await work(item, i);
  };
  await Promise.all(Array.from({ length: most }, worker));
}

const benchCluster = (name: string, replicas: number): Raw => clusterIn('', name, replicas);
const bareCluster = (): op.StatefulCluster => {
  const { metadata, spec: given } = benchCluster('bare', 1);
  const spec = { ...given, persistentVolumeClaimRetentionPolicy: KEPT };
  return clusterOf({ metadata: { ...metadata, uid: 'none' }, spec });
};
/** What the operator would post for so many members. */
function bodiesOf(cluster: op.StatefulCluster, count: number) {
  const { update } = op.updateRevisionOf(cluster, new Map());
  const ids = op.allocate(count, new Set(), Date.now(), Math.random);
  const members = ids.map((identity) => {
    const born = { identity, revision: update, index: undefined };
    const claims = update.claimTemplates.map((name) => op.claimBody(cluster, born, name));
    return { claims, pod: op.podBody(cluster, born, true) };
  });
  return { revision: op.revisionBody(cluster, update), members };
}
const benchNodes = Array.from({ length: 10 }, (_, i) => `node-${i}`);
type Seeding = (method: 'POST' | 'PATCH', path: string, body: unknown) => Promise<Raw>;
const seedingOf = (ground: Ground): Seeding => order.bind(undefined, ground);
async function seedNodes(seed: Seeding): Promise<void> {
  for (const name of benchNodes) {
    await seed('POST', '/api/v1/nodes', { metadata: { name } });
    const lastTransitionTime = op.timeText(Date.now());
    const conditions = [{ type: 'Ready', status: 'True', lastTransitionTime }];
    await seed('PATCH', `/api/v1/nodes/${name}/status`, { status: { conditions } });
  }
}
/** A cluster whose members are as the operator, a scheduler and kubelets would have left them. */
async function seedCluster(
  seed: Seeding,
  [namespace, name, count]: readonly [string, string, number],
): Promise<void> {
  const cluster = clusterOf(await seed('POST', clusterAt(namespace), benchCluster(name, count)));
  const { revision, members } = bodiesOf(cluster, count);
  const history = `/apis/apps/v1/namespaces/${namespace}/controllerrevisions`;
  await seed('POST', history, revision);
  await inFlight(members, 32, async ({ claims, pod }, i) => {
    for (const claim of claims) {
      const spec = { ...(claim['spec'] as object), volumeName: `pv-${claim.metadata.name}` };
      const path = placeOf(namespace, 'persistentvolumeclaims');
      await seed('POST', path, { ...claim, spec });
      const status = { phase: 'Bound', capacity: { storage: '1Gi' } };
      await seed('PATCH', `${path}/${claim.metadata.name}/status`, { status });
    }
    const spec = { ...(pod['spec'] as object), nodeName: benchNodes[i % benchNodes.length] };
    await seed('POST', placeOf(namespace, 'pods'), { ...pod, spec });
    const path = `${placeOf(namespace, 'pods', pod.metadata.name)}/status`;
    await seed('PATCH', path, { status: runningStatus() });
  });
}
function runningStatus(): object {
  const at = op.timeText(Date.now() - 5000);
  const condition = (type: string) => ({ type, status: 'True', lastTransitionTime: at });
  const conditions = ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map(condition);
  const state = { running: { startedAt: at } };
  const ids = { image: 'codercom/code-server', imageID: '', containerID: 'containerd://1' };
  const one = { name: 'coder', ready: true, started: true, restartCount: 0, state, ...ids };
  return { phase: 'Running', startTime: at, conditions, containerStatuses: [one] };
}

// ── Creation ────────────────────────────────────────────────────────────────────────────────────
/** The pods of a namespace, and when a watch that goes on after its end first showed each. */
async function watchPods(ground: Ground, namespace: string, signal: AbortSignal) {
  const bell = newBell();
  const born = new Map<string, number>();
  const on = (before?: Pod, after?: Pod): void => {
    if (!before && after) born.set(after.meta.name, performance.now());
    bell.ring();
  };
  const { world } = ground;
  const path = placeOf(namespace, 'pods');
  const { items, ready } = follow({ world, path, project: podOf, on, signal });
  await ready.promise;
  return { born, items, until: bell.until };
}
/** Milliseconds from `begin` until a watch has shown so many new pods of a new namespace. */
async function timePods(
  ground: Ground,
  namespace: string,
  count: number,
  begin: () => Promise<unknown>,
): Promise<number> {
  await newNamespace(ground, namespace);
  const stop = new AbortController();
  const { born, until } = await watchPods(ground, namespace, stop.signal);
  const from = performance.now();
  await begin();
  await until(namespace, () => (born.size < count ? `${born.size} pods` : ''), 600_000);
  stop.abort();
  return Math.max(...born.values()) - from;
}
/** The same claims and pods, posted by a bare loop with 32 requests in flight. */
async function postBare(ground: Ground, namespace: string, count: number): Promise<void> {
  const { members } = bodiesOf(bareCluster(), count);
  await inFlight(members, 32, async ({ claims, pod }) => {
    for (const claim of claims)
      await order(ground, 'POST', placeOf(namespace, 'persistentvolumeclaims'), claim);
    await order(ground, 'POST', placeOf(namespace, 'pods'), pod);
  });
}
async function benchCreation(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  const operator = await startGauged(ground, '-A');
  await operator.ask('loop');
  const grow = (name: string, count: number): Promise<number> =>
    timePods(ground, name, count, () =>
      order(ground, 'POST', clusterAt(name), benchCluster('web', count)),
    );
  const of = await rounds(bench, 'creation', async (round) => {
    const name = `bare-${round}`;
    const bare = await timePods(ground, name, 300, () => postBare(ground, name, 300));
    const few = await grow(`few-${round}`, 300);
    await untilQuiet(operator);
    await operator.ask('reset');
    const many = (await grow(`many-${round}`, 1000)) * 0.3;
    const { busyMs } = await untilQuiet(operator);
    return { bare, few, many, busyMs };
  });
  await operator.stop();
  const few = of('few');
  return [
    against(['300 members: last pod', 'bare loop, 32 in flight'], few, of('bare'), 1.15, 'ms'),
    against(['1,000 members: last pod, per 300', '300 members'], of('many'), few, 1.2, 'ms'),
    within('… longest that its thread was busy', of('busyMs'), 50, 'ms'),
  ];
}

// ── Replacement ─────────────────────────────────────────────────────────────────────────────────
async function benchReplacement(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  const stop = new AbortController();
  const actors = startActors(realWorld(ground.access), { ...FAST, nodes: benchNodes }, stop.signal);
  await actors.synced;
  const operator = await startGauged(ground, '-A');
  const { born, items, until } = await watchPods(ground, 'default', stop.signal);
  // In each round a cluster of its own: more young members deleted than it has hold its births.
  const size = 20;
  const of = await rounds(bench, 'replacement', async (round) => {
    const name = `web-${round}`;
    const isUp = (pod: Pod): boolean => pod.ready && pod.meta.labels['app'] === name;
    const ups = () => [...items.values()].filter(isUp);
    const whole = (): Promise<void> =>
      until('all are Ready', () => (ups().length === size ? '' : `${ups().length}`));
    await order(ground, 'POST', clusterAt('default'), benchCluster(name, size));
    await whole();
    const times: number[] = [];
    const twos: number[] = [];
    for (let i = 0; i < size; i++) {
      twos.push(await timeTwoPosts(ground));
      await whole(); // A node may have been late meanwhile.
      const known = born.size;
      const victim = placeOf('default', 'pods', ups()[i]?.meta.name);
      await order(ground, 'DELETE', victim, { gracePeriodSeconds: 0 });
      const from = performance.now();
      await until('a new pod', () => (born.size > known ? '' : 'none'));
      times.push(([...born.values()][known] ?? NaN) - from);
      await whole();
      await rest(150);
    }
    return { p50: quantileOf(times, 0.5), p95: quantileOf(times, 0.95), pair: medianOf(twos) };
  });
  await operator.stop();
  stop.abort();
  const title = 'a pod is force-deleted: until the next exists,';
  return [
    against([`${title} p50`, 'two POSTs in a row'], of('p50'), of('pair'), 2, 'ms'),
    against([`${title} p95`, 'two POSTs in a row'], of('p95'), of('pair'), 4, 'ms'),
  ];
}
/** A claim, then a pod, which no node suits, on the warm connection. */
async function timeTwoPosts(ground: Ground): Promise<number> {
  const { members } = bodiesOf(bareCluster(), 1);
  const [{ claims: [claim], pod } = { claims: [], pod: undefined }] = members;
  const spec = { ...(pod?.['spec'] as object), nodeSelector: { nowhere: 'true' } };
  const from = performance.now();
  await order(ground, 'POST', placeOf('default', 'persistentvolumeclaims'), claim);
  await order(ground, 'POST', placeOf('default', 'pods'), { ...pod, spec });
  return performance.now() - from;
}

// ── A thousand clusters at rest ─────────────────────────────────────────────────────────────────
const SPACES = { one: 1, hundred: 99, thousand: 900 } as const;
const listPaths = [
  '/apis/enge.me/v1alpha1/statefulclusters',
  ...['/api/v1/pods', '/api/v1/persistentvolumeclaims', '/apis/apps/v1/controllerrevisions'],
];
/** In a process of its own, as the operator is: the bare list of what the operator caches. */
async function listBare(kubeconfig: string): Promise<number> {
  const client = op.realWorld(await op.loadConfig(kubeconfig), none);
  const from = performance.now();
  const lists = listPaths.map((path) => client.send({ method: 'GET', path, timeoutMs: 60_000 }));
  await Promise.all(lists);
  console.log(performance.now() - from);
  return 0;
}
async function benchRestart(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  const of = await rounds(bench, 'restart', async () => {
    const list = launchOf([...UNCACHED, import.meta.filename, 'list', ground.kubeconfig]);
    const listed = Number((await finished(list)).out);
    const operator = await startGauged(ground, '-A');
    await operator.stop();
    return { listed, synced: operator.at('caches are synced') - operator.at('leads') };
  });
  const names = ['restart, 1,000 clusters × 3: synced', 'bare list of the same'] as const;
  return [against(names, of('synced'), of('listed'), 2, 'ms')];
}

/** A label of the cluster changes, and nothing follows from it. */
async function benchNoOp(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  await newNamespace(ground, 'big');
  await seedCluster(seedingOf(ground), ['big', 'c-0', 1000]);
  const scopes = [['one'], ['one', 'hundred'], ['one', 'hundred', 'thousand'], ['big']];
  const started = scopes.map((names) =>
    startGauged(ground, ALONE, ...names.flatMap((name) => ['-n', name])),
  );
  const operators = await Promise.all(started);
  for (const operator of operators) await untilQuiet(operator);
  const touch = async (namespace: string, times: number, gapMs: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const metadata = { labels: { touched: `${performance.now()}` } };
      await order(ground, 'PATCH', clusterAt(namespace, 'c-0'), { metadata });
      await rest(gapMs);
    }
  };
  await touch('one', 300, 2); // Until the code is compiled.
  await touch('big', 40, 60);
  const of = await rounds(bench, 'no-op reconcile', async () => {
    const begun = await Promise.all(operators.map((operator) => operator.ask('reset')));
    await touch('one', 300, 4); // Three see it, then the fourth what is big.
    await touch('big', 40, 100);
    const each: number[] = [];
    for (const [i, operator] of operators.entries()) {
      const { cpuMs, passes } = await untilQuiet(operator);
      each.push((cpuMs - (begun[i]?.cpuMs ?? 0)) / sumOf(passes));
    }
    const [alone = NaN, hundred = NaN, thousand = NaN, big = NaN] = each;
    return { alone, hundred, thousand, big: (big * 3) / 1000 };
  });
  for (const operator of operators) await operator.stop();
  const [alone, hundred, thousand] = [of('alone'), of('hundred'), of('thousand')];
  return [
    against(['no-op pass, 1,000 members: CPU per 3', '3 members'], of('big'), alone, 1.2, 'ms'),
    against(['no-op pass, 3 members, 100 clusters', '1 cluster'], hundred, alone, 1.3, 'ms'),
    against(['no-op pass, 3 members, 1,000 clusters', '1 cluster'], thousand, alone, 1.3, 'ms'),
  ];
}

async function benchRest(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  const operator = await startQuiet(ground);
  let before = await operator.ask('reset');
  const of = await rounds({ ...bench, repeats: 5 }, 'at rest', async () => {
    const from = performance.now();
    await rest(bench.restSeconds * 200);
    const now = await operator.ask('read');
    const share = (100 * (now.cpuMs - before.cpuMs)) / (performance.now() - from);
    before = now;
    return { share };
  });
  await operator.stop();
  const title = `at rest for ${bench.restSeconds} s, 1,000 clusters × 3: CPU, of a core`;
  return [within(title, of('share'), 0.5, '%')];
}

async function benchScale(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  await seedNodes(seedingOf(ground));
  const clusters = Object.entries(SPACES).flatMap(([namespace, count]) =>
    Array.from({ length: count }, (_, i) => [namespace, `c-${i}`] as const),
  );
  for (const namespace of Object.keys(SPACES)) await newNamespace(ground, namespace);
  bench.say('seeding 1,000 clusters with three members each');
  await inFlight(clusters, 16, (place) => seedCluster(seedingOf(ground), [...place, 3]));
  bench.say('the first status of each');
  await (await startQuiet(ground)).stop();
  return [
    ...(await benchRestart(ground, bench)),
    ...(await benchRest(ground, bench)),
    ...(await benchNoOp(ground, bench)),
  ];
}

// ── Memory ──────────────────────────────────────────────────────────────────────────────────────
async function benchMemory(ground: Ground, bench: Bench): Promise<readonly Finding[]> {
  await seedNodes(seedingOf(ground));
  const bare = await startGauged(ground, '-A');
  const empty = await untilQuiet(bare).then(() => bare.ask('gc'));
  await bare.stop();
  await newNamespace(ground, 'full');
  bench.say('seeding 10,000 pods with a claim each, of 1,000 clusters');
  const names = Array.from({ length: 1000 }, (_, i) => `c-${i}`);
  await inFlight(names, 8, (name) => seedCluster(seedingOf(ground), ['full', name, 10]));
  await (await startQuiet(ground)).stop();
  const of = await rounds(bench, 'memory', async () => {
    const operator = await startGauged(ground, '-A');
    const synced = (await untilQuiet(operator)).rssMb;
    await rest(60_000); // V8 gives back what the list took.
    const resident = (await operator.ask('read')).rssMb;
    const heap = ((await operator.ask('gc')).heapMb - empty.heapMb) * (1024 / 10_000);
    await operator.stop();
    return { synced, resident, heap };
  });
  const [bareMb, firstMb] = [empty.rssMb, medianOf(of('synced'))].map((mb) => inUnit(mb, 'MB'));
  const limit = `without any object ${bareMb}, at the sync ${firstMb}`;
  const title = '10,000 pods, 10,000 claims, 1,000 clusters: resident after 60 s';
  return [
    { ...within(title, of('resident'), 120, 'MB'), limit },
    within('… heap of all, per pod', of('heap'), 4, 'KB'),
  ];
}

// ── The table ───────────────────────────────────────────────────────────────────────────────────
const BENCHES = {
  ...{ creation: benchCreation, replacement: benchReplacement },
  ...{ scale: benchScale, memory: benchMemory },
};
function drawTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((r) => r[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`;
  const [head = [], ...others] = rows.map(line);
  return [head, `|${widths.map((w) => '-'.repeat(w + 2)).join('|')}|`, ...others].join('\n');
}
const rowOf = ({ met, ...f }: Finding) => [f.what, f.figure, f.limit, f.target, met ? 'yes' : 'NO'];
/** Returns the exit code: a target that is missed is a finding, not a failure. */
async function benchAll(args: readonly string[]): Promise<number> {
  const options = { on: TEXT, only: TEXT, repeats: TEXT, rest: TEXT };
  const { values } = parseArgs({ args: [...args], options });
  const say = (what: string): void => console.error(kleur.gray(what));
  const [repeats, restSeconds] = [Number(values.repeats ?? 5), Number(values.rest ?? 300)];
  const bench = { repeats, restSeconds, say };
  const grounds = { embedded: newEmbeddedGround, ...(assets && { real: newRealGround }) };
  const folder = scratch();
  await writeGauged(folder);
  let failed = 0;
  for (const [name, open] of Object.entries(grounds)) {
    if (values.on !== undefined && values.on !== name) continue;
    const findings: Finding[] = [];
    for (const [title, play] of Object.entries(BENCHES)) {
      if (!title.includes(values.only ?? '')) continue;
      say(`${name}: ${title}`);
      const ground = await open(folder);
      try {
        for (const finding of await play(ground, bench)) findings.push(finding);
      } catch (error) {
        console.error(`${name}: ${title}: ${error instanceof Error ? error.stack : error}`);
        failed = 1;
      }
      await ground.stop();
    }
    const head = [`${name} control plane`, 'figure', 'limit of this run', 'target', 'met'];
    console.log(`${drawTable([head, ...findings.map(rowOf)])}\n`);
  }
  return failed;
}

// ═══ IMAGE · effects ════════════════════════════════════════════════════════════════════════════
// `image FILE FOLDER`: what build.mjs packed is read back, from the index down to the last file of
// each layer, by other code than wrote it; the first thing that is wrong is thrown. The root that a
// container on this machine would see is put into FOLDER.

type Descriptor = Readonly<{ digest: string; size: number; platform?: Rec }>;
type Packed = Readonly<{ mode: number; body: Buffer }>;
type Archive = ReadonlyMap<string, Packed>;
const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const parsed = (bytes: Buffer | undefined): Raw => JSON.parse(String(bytes)) as Raw;

/** The files of a tar archive: sorted, root's, without a time, and for no one else to change. */
function untar(archive: Buffer): Archive {
  const files = new Map<string, Packed>();
  for (let [at, before] = [0, '']; archive[at] !== 0;) {
    const header = archive.subarray(at, at + 512);
    const text = (from: number, length: number): string =>
      header.toString('latin1', from, from + length).replace(/\0.*/s, '');
    const octal = (from: number, length = 8): number => Number.parseInt(text(from, length), 8);
    const [name, mode, size, time] = [text(0, 100), octal(100), octal(124, 12), octal(136, 12)];
    const sum = header.reduce((a, byte, i) => a + (i >= 148 && i < 156 ? 32 : byte), 0);
    const form = [octal(148), text(257, 6), text(156, 1)];
    assert.equal(form, [sum, 'ustar', name.endsWith('/') ? '5' : '0'], `form of ${name}`);
    assert.equal([octal(108), octal(116), time, mode & 0o7022], [0, 0, 0, 0], `mode of ${name}`);
    assert.ok(name > before && !/^\/|\.\./.test(name), `${name} comes after ${before}`);
    files.set(name, { mode, body: archive.subarray(at + 512, at + 512 + size) });
    [at, before] = [at + 512 + Math.ceil(size / 512) * 512, name];
  }
  return files;
}

/** Roots by architecture. Every blob is what its digest says, and is there for a reason. */
function rootsOf(files: Archive): ReadonlyMap<string, Archive> {
  const used = new Set(['oci-layout', 'index.json', 'manifest.json', 'blobs/', 'blobs/sha256/']);
  const read = ({ digest, size }: Descriptor): Buffer => {
    const name = `blobs/${digest.replace(':', '/')}`;
    const body = files.get(name)?.body ?? Buffer.alloc(0);
    used.add(name);
    assert.equal([sha256(body), body.length], [digest, size], name);
    return body;
  };
  assert.equal(parsed(files.get('oci-layout')?.body), { imageLayoutVersion: '1.0.0' });
  const [top] = parsed(files.get('index.json')?.body)['manifests'];
  const images: readonly Descriptor[] = parsed(read(top))['manifests'] ?? [top];
  const roots = images.map((image): [string, Archive] => {
    const { config, layers } = parsed(read(image));
    const { architecture, os, rootfs, config: runs } = parsed(read(config));
    assert.equal({ os, architecture }, image.platform, 'its platform');
    const [layer = Buffer.alloc(0), ...more] = layers.map((l: Descriptor) => gunzipSync(read(l)));
    assert.equal([rootfs.diff_ids, more], [[sha256(layer)], []], 'its one layer');
    const { Labels: labels, ...how } = runs;
    const wanted = { User: '65532:65532', Entrypoint: ['/statefulcluster'], Cmd: ['run'] };
    assert.equal(how, wanted, 'how it runs');
    const { version } = parsed(fs.readFileSync(join(ROOT, 'package.json')));
    assert.is(labels['org.opencontainers.image.version'], version, 'its version');
    return [architecture, untar(layer)];
  });
  for (const name of files.keys()) assert.ok(used.has(name), `${name} is for nothing`);
  const [old] = parsed(files.get('manifest.json')?.body) as unknown as readonly Raw[];
  for (const name of [old?.['Config'], ...old?.['Layers']]) assert.ok(used.has(name), name);
  return new Map(roots);
}

/** Returns the exit code. */
function unpackImage([file = '', folder = '']: readonly string[]): number {
  try {
    if (!folder) throw new Error('it wants the path of an image and a folder');
    const roots = rootsOf(untar(fs.readFileSync(file)));
    const root = roots.get(process.arch.replace('x64', 'amd64'));
    if (!root) throw new Error(`${file} is not for this machine`);
    for (const [name, { mode, body }] of root) {
      if (name.endsWith('/')) fs.mkdirSync(join(folder, name), { mode });
      else fs.writeFileSync(join(folder, name), body, { mode });
    }
    console.log(`image: ${file}: ${[...roots.keys()].join(', ')}; ${[...root.keys()].join(' ')}`);
    return 0;
  } catch (error) {
    console.error(`image: ${error instanceof Error ? error.message : String(error)}`);
    return 1;
  }
}

if (import.meta.main && !TESTING) {
  const [command, ...args] = process.argv.slice(2);
  const [first = ''] = args;
  if (command === 'image') process.exit(unpackImage(args));
  if (command === 'record') process.exit(await record());
  if (command === 'bench') process.exit(await benchAll(args));
  if (command === 'serve') process.exit(await serveAlone());
  if (command === 'list') process.exit(await listBare(first));
  process.exit(await (command === 'sim' ? simulate(args) : demo(process.argv.slice(2))));
}
