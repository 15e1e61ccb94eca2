// StatefulCluster: stateful pods on Kubernetes whose identity is never re-used.
// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import http2 from 'node:http2';
import { parseArgs } from 'node:util';
import kleur from 'kleur';
import type {
  Cluster,
  KubeConfig,
  V1PersistentVolumeClaim,
  V1PodTemplateSpec,
} from '@kubernetes/client-node';

// ═══ 0 FRONT DOOR · pure ═════════════════════════════════════════════════════════════════════════
// A StatefulCluster keeps `spec.replicas` members alive. A member is an identity, a pod and claims.
// An identity is born with its first pod and dies with its state; no other pod ever gets it.
// When a member is Lost, its claims are marked retired, its pod is deleted, and a new identity with
// new claims is made in the same pass, without waiting for the old object and without fencing:
// a replaced member on a node that nobody can reach may still be running there.
// What is only judged (a silent node may come back) is braked, so no outage makes a cluster give
// itself up. Everything from here to THE LINE decides and touches nothing; below it, all obeys.
//
// I1 No two pods ever have the same identity, except under `WhenVolumesLost`, where pod and claims
//    are those of that identity and the former pod object is gone (a live GET said so).
// I2 A claim is mounted by pods of one identity only.
// I3 A claim is deleted only if it was marked with policy Delete, after its pod object is gone, or
//    unbound after a refused or interrupted creation.
// I4 Under one operator live members never exceed replicas, whatever crashes, repeats or lags.
// I5 By its own choice the operator never takes availability below replicas - maxUnavailable.
// I6 When faults end, status equals spec in bounded steps; then only watches are sent.
// I7 The operator never writes spec or metadata of the StatefulCluster.
// I8 Nothing controlled by another owner is changed or deleted.
// I9 Every replacement has one Reason, the same word in the Event, the log, `enge.me/replaces`, the
//    mark on the claims and status.retired; it is decided once and carried by the marks. A member
//    without claims has no marks: a crash between its deletion and its successor loses the word.

/** Every API verb this operator ever sends; `tidy` holds deploy.yaml's ClusterRole against it. */
export const RIGHTS: Readonly<Record<string, string>> = {
  'enge.me/statefulclusters': 'get list watch',
  'enge.me/statefulclusters/status': 'patch',
  'enge.me/statefulclusters/finalizers': 'update', // Asked of whoever sets blockOwnerDeletion.
  pods: 'get list watch create patch delete',
  persistentvolumeclaims: 'get list watch create patch delete',
  nodes: 'get list watch', // Without it, NodeGone and NodeUnreachable are not judged.
  persistentvolumes: 'get', // Without it, a volume's node affinity is not judged.
  events: 'create patch',
};

/** Labels and annotations; README says what each means. */
export const MARK = {
  cluster: 'enge.me/statefulcluster',
  identity: 'enge.me/identity',
  revision: 'controller-revision-hash',
  replaces: 'enge.me/replaces',
  retired: 'enge.me/retired',
  retiredAt: 'enge.me/retired-at',
  retiredPolicy: 'enge.me/retired-policy',
  replace: 'enge.me/replace',
  paused: 'enge.me/paused',
  deletionCost: 'controller.kubernetes.io/pod-deletion-cost',
} as const;

/** Every number that bounds something, in one place. */
export const LIMITS = {
  batchMax: 500, // Creations in flight for one cluster, reached by slow start 1, 2, 4, …
  statusMembersMax: 100,
  statusRetiredMax: 10,
  backoffMinMs: 10_000, // Creations after a refusal, and after members that keep ending early.
  backoffMaxMs: 300_000,
  earlyEndMs: 600_000, // A member that ends sooner than this after its birth ended early.
  settleMs: 60_000, // A claim without a pod may be a creation in flight until it is this old.
  returnMs: 60_000, // After an outage, the nodes that are still away have this long to return.
  trustMs: 60_000, // Watched this long, an object's own timestamps are believed.
  bringUpMaxMs: 600_000, // OrderedReady waits no longer than this for one member.
  leavingMaxMs: 30_000, // … nor longer than this past the grace period of a leaving one.
  toldMax: 50, // Events of one cluster that are remembered, to count repeats.
  statusEveryMs: 1_000, // Status writes of one cluster are at least this far apart.
  recheckMs: 1_000, // The cache is looked at again for own writes, should no event come.
  catchUpMaxMs: 10_000, // A cache that lags own writes longer than this is listed anew.
  requestMs: 15_000,
  pingMs: 10_000, // A connection that answers no ping within two of these is dead.
  pageSize: 500,
  stopMaxMs: 4_000, // From SIGTERM to the end of the process.
  briefMs: 1_000, // A stream that ends sooner without news has failed.
  syncMaxMs: 60_000,
  refusalsMax: 3, // So many 403s in a row, over some seconds, are believed.
  retryMinMs: 800, // A watch that broke.
  againMinMs: 100, // A pass that failed, most often on a conflict.
  retryMaxMs: 30_000,
} as const;

// ═══ 1 VOCABULARY · pure ═════════════════════════════════════════════════════════════════════════
// The words of every other room, as readonly data. Objects from the API are projected to what is
// decided upon; times are milliseconds since 1970 (`…Ms`). No functions, no clever types.

export type IntOrPercent = number | string;
export type DataPolicy = 'Retain' | 'Delete';
type Dict = Readonly<Record<string, string>>;

/** `spec` of a StatefulCluster with all defaults filled in; see the CRD for the meaning of each. */
export interface Spec {
  readonly replicas: number;
  readonly suspend: boolean;
  readonly selector: LabelSelector;
  readonly template: V1PodTemplateSpec;
  readonly volumeClaimTemplates: readonly V1PersistentVolumeClaim[];
  readonly serviceName: string;
  readonly podManagementPolicy: 'Parallel' | 'OrderedReady';
  readonly minReadySeconds: number;
  readonly updateStrategy: { readonly rollingUpdate: { readonly maxUnavailable: IntOrPercent } };
  readonly replacementPolicy: 'Always' | 'WhenVolumesLost';
  readonly liveness: Liveness;
  readonly persistentVolumeClaimRetentionPolicy: Readonly<
    Record<'whenDeleted' | 'whenScaled' | 'whenReplaced' | 'whenLost', DataPolicy>
  >;
}

/** Thresholds of the judgements, in seconds; 0 means never for the last three. */
export interface Liveness {
  readonly nodeGoneSeconds: number;
  readonly nodeUnreachableSeconds: number;
  readonly volumeLostSeconds: number;
  readonly unreadySeconds: number;
  readonly startupSeconds: number;
  readonly maxRestarts: number;
  readonly maxReplacements?: IntOrPercent;
}

/** metav1.LabelSelector. */
export interface LabelSelector {
  readonly matchLabels?: Dict;
  readonly matchExpressions?: readonly SelectorTerm[];
}
/** One requirement of a label or node selector. */
export interface SelectorTerm {
  readonly key: string;
  readonly operator: string;
  readonly values?: readonly string[];
}

/** metav1.OwnerReference. */
export interface Owner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

/** What is decided upon of an object's metadata. */
export interface Meta {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
  readonly labels: Dict;
  readonly annotations: Dict;
  readonly owners: readonly Owner[];
  readonly createdMs: number;
  readonly deletedMs: number | undefined; // When the grace period ends; set means Terminating.
}

/** The custom resource, with the defaults filled in. */
export interface StatefulCluster {
  readonly meta: Meta;
  readonly spec: Spec;
  readonly status: Partial<Status>;
}

/** What is decided upon of a pod. */
export interface Pod {
  readonly meta: Meta;
  readonly node: string; // '' while unscheduled.
  readonly phase: string;
  readonly graceSeconds: number;
  readonly claims: readonly string[]; // Names of the claims it mounts.
  readonly scheduledMs: number | undefined;
  readonly startedMs: number | undefined;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined; // Last transition of the Ready condition.
  readonly disruption: string; // Reason of its DisruptionTarget condition, or ''.
  readonly disruptedMs: number | undefined;
  readonly restarts: number;
  readonly crashLooping: boolean;
}

/** What is decided upon of a PersistentVolumeClaim. */
export interface Claim {
  readonly meta: Meta;
  readonly phase: string;
  readonly volume: string; // '' while unbound.
  readonly request: string; // spec.resources.requests.storage, a quantity.
  readonly selectedNode: string; // The node the scheduler chose for it, or ''.
  readonly spec: Readonly<Record<string, unknown>>;
}

/** What is decided upon of a Kubernetes Node. */
export interface Node {
  readonly meta: Meta;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined;
  readonly outOfService: boolean;
}

/** A PersistentVolume's node affinity: terms are alternatives, each a list of requirements. */
export interface Volume {
  readonly meta: Meta;
  readonly terms: readonly (readonly SelectorTerm[])[] | undefined; // undefined: any node.
}

/** Facts end a member; the plan lets it go at once. */
export const FACTS = [
  ...(['ReplaceRequested', 'NodeOutOfService', 'PodDeleted'] as const),
  ...(['PodFailed', 'ClaimGone', 'Released'] as const),
] as const;
/** Judgements are about a member that might come back; the plan brakes them. */
export const JUDGEMENTS = [
  ...(['NodeGone', 'NodeUnreachable', 'VolumeLost'] as const),
  ...(['Unready', 'StartupTimeout', 'CrashLoop'] as const),
] as const;
export type Loss = (typeof FACTS)[number] | (typeof JUDGEMENTS)[number];
export type Upkeep = 'Interrupted' | 'Adopted' | 'Relabelled' | 'Expanded' | 'Owned';
/** Why something is done: the same word everywhere (I9). */
export type Reason = Loss | 'ScaledOut' | 'ScaledIn' | 'Returned' | Upkeep;

export type Health =
  'Pending' | 'Starting' | 'Ready' | 'Available' | 'Unready' | 'Terminating' | 'Lost';

/** An identity with what exists of it. */
export interface Member {
  readonly identity: string;
  readonly pod: Pod | undefined;
  readonly lastPod: Pod | undefined; // As last seen by this process, when the object is gone.
  readonly gone: boolean; // A live GET in this pass said that there is no pod object.
  readonly claims: readonly Claim[];
  readonly missing: readonly string[]; // Claims the pod mounts that a live GET did not find.
  readonly retired: Readonly<{ reason: Reason; policy: DataPolicy; atMs: number }> | undefined;
  readonly deletionIsOurs: boolean;
  readonly volumesDownInMs: number; // Until no usable node satisfies its volumes; 0: now.
  readonly restartsBefore: number; // Restarts up to the time it was last Available.
}
/** A judgement in the making: what speaks for it since when, and how long that must last. */
export interface Suspicion {
  readonly reason: Loss;
  readonly seconds: number;
  readonly sinceMs: number | undefined;
}

/** What is known of the node a member is, or was, on. */
export interface NodeView {
  readonly state: 'Healthy' | 'NotReady' | 'Absent' | 'OutOfService';
  readonly sinceMs: number | undefined;
}

/** What a member is. `reason` is set when Lost; `judged` says that it might come back. */
export interface Verdict {
  readonly health: Health;
  readonly reason?: Loss;
  readonly judged?: boolean;
  readonly suspected?: boolean; // Its node speaks against it, but not for long enough yet.
  readonly sinceMs: number;
  readonly wakeMs?: number; // Time alone may change the verdict after this many milliseconds.
}
/** A member, what it is, and what the plan does with it. */
export interface Judged {
  readonly member: Member;
  readonly verdict: Verdict;
  readonly standing: Standing;
}
/** live: counts toward replicas. withheld: live, judged Lost, the brake holds. returning: live,
 *  between two pods. letGo: lost, its identity ends now. condemned: its identity has ended.
 *  undecided: claims whose pod was never seen; may be a creation in flight. */
export type Standing = 'live' | 'withheld' | 'returning' | 'letGo' | 'condemned' | 'undecided';

/** What this process has seen itself. To lose it makes the operator wait longer, never act
 *  sooner. */
export interface Memory {
  readonly firstSeen: ReadonlyMap<string, number>; // Evidence key → uptime.
  readonly lastPods: ReadonlyMap<string, Pod>; // Identity → pod, after its object went.
  readonly deletedUids: ReadonlySet<string>; // Pods whose deletion this process sent.
  readonly restartsBefore: ReadonlyMap<string, number>; // Pod UID → restarts.
  readonly outage: Outage | undefined;
  readonly refusal: Refusal | undefined;
  readonly complaints: ReadonlyMap<string, Complaint>; // By claim name.
  readonly unfinished: ReadonlySet<string>; // Pods whose creation has no definite answer yet.
  readonly returns: ReadonlyMap<string, Comeback>; // Identity → its returns in the last 10 min.
}
/** More members than may be replaced (`limit`) were away, until `easedAt` (uptime). */
export interface Outage {
  readonly limit: number;
  readonly easedAt: number;
}
/** Returns of one identity, for their backoff. */
export interface Comeback {
  readonly times: number;
  readonly atUptime: number;
}
/** Why a claim could not be expanded, in the API server's words, and when to try again. */
export interface Complaint {
  readonly message: string;
  readonly request: string;
  readonly untilUptime: number;
}
/** The API server's refusal to create, in its own words. */
export interface Refusal {
  readonly message: string;
  readonly times: number;
  readonly untilUptime: number;
}

/** All that a decision rests on. `live` names what was read live in this pass (`pods/x`, …). */
export interface Snapshot {
  readonly cluster: StatefulCluster;
  readonly pods: ReadonlyMap<string, Pod>;
  readonly claims: ReadonlyMap<string, Claim>;
  readonly nodes: ReadonlyMap<string, Node> | undefined; // undefined: no right to read them.
  readonly volumes: ReadonlyMap<string, Volume>;
  readonly volumesReadable: boolean;
  readonly live: ReadonlySet<string>;
  readonly memory: Memory;
  readonly denied: string; // Why its children may not be read any more, or ''.
  readonly uptime: number;
}

/** A thing to read live before the decision can be made. */
export interface Ref {
  readonly kind:
    'pods' | 'persistentvolumeclaims' | 'nodes' | 'persistentvolumes' | 'statefulclusters';
  readonly name: string;
}

/** A member to be made: claims first, then the pod. `claims` are bodies to POST, `pod` too. */
export interface Birth {
  readonly identity: string;
  readonly pod: Body;
  readonly claims: readonly Body[];
}
/** An object to POST. */
export interface Body {
  readonly metadata: { readonly name: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

/** What the executor can do, each with its Reason. Claims are born with their member. */
export type Action =
  | Readonly<{ do: 'AdoptPod' | 'ReleasePod' | 'DeletePod'; pod: Pod; because: Reason }>
  | Readonly<{ do: 'RelabelPod'; pod: Pod; identity: string; because: Reason }>
  | Readonly<{ do: 'RetireClaim'; claim: Claim; policy: DataPolicy; because: Reason }>
  | Readonly<{ do: 'DeleteClaim'; claim: Claim; because: Reason }>
  | Readonly<{ do: 'OwnClaim'; claim: Claim; owners: readonly Owner[]; because: Reason }>
  | Readonly<{ do: 'ExpandClaim'; claim: Claim; request: string; because: Reason }>
  | Readonly<{ do: 'CreateMember'; birth: Birth; replaces?: string; because: Reason }>;

export type Creation = Extract<Action, { do: 'CreateMember' }>;

/** What is to be done in this pass, and why nothing is where nothing is. */
export interface Plan {
  readonly members: readonly Judged[];
  readonly actions: readonly Action[];
  readonly ask: readonly Ref[];
  readonly evidence: readonly string[]; // Keys of the evidence in force, for Memory.firstSeen.
  readonly wakeMs: number; // Look again after this long at the latest; Infinity = on events only.
  readonly stalled: string; // Why nothing can be created, or ''.
  readonly held: string; // Why creations wait, or ''.
  readonly withheld: string; // Why judged members are not replaced, or ''.
  readonly outage: Outage | undefined; // For Memory.
}

/** metav1.Condition. */
export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration: number;
  readonly lastTransitionTime: string;
}
/** One line of `status.members`. */
export interface MemberStatus {
  readonly identity: string;
  readonly pod: string;
  readonly node: string;
  readonly revision: string;
  readonly health: string;
  readonly reason: string;
  readonly since?: string;
  readonly claims: readonly string[];
}
/** One line of `status.retired`. */
export interface RetiredStatus {
  readonly identity: string;
  readonly reason: string;
  readonly at: string;
  readonly claims: readonly string[];
  readonly replacedBy: string;
}
/** A hint for people and tools: no decision about an identity or a claim rests on it. */
export interface Status {
  readonly observedGeneration: number;
  readonly replicas: number;
  readonly readyReplicas: number;
  readonly availableReplicas: number;
  readonly currentReplicas: number;
  readonly updatedReplicas: number;
  readonly currentRevision: string;
  readonly updateRevision: string;
  readonly collisionCount: number;
  readonly selector: string;
  readonly replacements: number;
  readonly retiredClaims: number;
  readonly newestIdentity: string;
  readonly members: readonly MemberStatus[];
  readonly retired: readonly RetiredStatus[];
  readonly conditions: readonly Condition[];
}

// ═══ 2 TOOLS · pure ══════════════════════════════════════════════════════════════════════════════
// Small functions without a domain: ownership, conditions, canonical JSON, int or percent, labels,
// quantities. They must not know what a member is.

/** States what cannot be; a failure is a bug, so it names the invariant. */
export function assert(truth: boolean, invariant: string): asserts truth {
  if (!truth) throw new Error(`bug: ${invariant}`);
}

export const isControlledBy = (meta: Meta, uid: string): boolean =>
  meta.owners.some((o) => o.controller === true && o.uid === uid);
export const hasController = (meta: Meta): boolean =>
  meta.owners.some((o) => o.controller === true);
export const isTerminating = (o: { readonly meta: Meta }): boolean =>
  o.meta.deletedMs !== undefined;

/** Seconds precision, as metav1.Time; '' for unknown. */
export const timeText = (ms: number | undefined): string =>
  ms === undefined ? '' : new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

/** JSON with sorted keys and without null, so that equal meaning gives equal bytes. Empty objects
 *  stay: an empty label selector selects everything, an absent one nothing. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((v) => canonicalJson(v ?? null)).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value ?? null);
  const fields = Object.entries(value).filter(([, v]) => v !== undefined && v !== null);
  fields.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([k, v]) => `${JSON.stringify(k)}:${canonicalJson(v)}`).join(',')}}`;
}

/** intstr.GetScaledValueFromIntOrPercent: an int as it is, a percent of `total`, rounded as
 *  told. */
export function scaledValue(value: IntOrPercent, total: number, round: 'up' | 'down'): number {
  if (typeof value === 'number') return value;
  const share = (Number.parseInt(value, 10) * total) / 100;
  return round === 'up' ? Math.ceil(share) : Math.floor(share);
}

/** One label or node selector term, as metav1.LabelSelectorRequirement and NodeSelectorRequirement.
 *  An operator newer than this program matches nothing. */
export function termMatches({ key, operator, values = [] }: SelectorTerm, labels: Dict): boolean {
  const value = labels[key];
  if (operator === 'NotIn') return value === undefined || !values.includes(value);
  if (operator === 'DoesNotExist' || value === undefined) {
    return operator === 'DoesNotExist' && value === undefined;
  }
  if (operator === 'In') return values.includes(value);
  if (operator === 'Gt') return Number(value) > Number(values[0]);
  if (operator === 'Lt') return Number(value) < Number(values[0]);
  return operator === 'Exists';
}
/** Does the selector match? An empty one matches everything. */
export function selectorMatches(selector: LabelSelector, labels: Dict): boolean {
  const pairs = Object.entries(selector.matchLabels ?? {});
  return (
    pairs.every(([key, value]) => labels[key] === value) &&
    (selector.matchExpressions ?? []).every((term) => termMatches(term, labels))
  );
}
/** The string form that `status.selector` of the scale subresource needs. */
export function selectorText(selector: LabelSelector): string {
  const pairs = Object.entries(selector.matchLabels ?? {}).map(([k, v]) => `${k}=${v}`);
  const terms = (selector.matchExpressions ?? []).map(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key;
    if (operator === 'DoesNotExist') return `!${key}`;
    return `${key} ${operator.toLowerCase()} (${values.join(',')})`;
  });
  return [...pairs.sort(), ...terms].join(',');
}

/** metav1 rule: lastTransitionTime moves only when the status does. */
export function setCondition(
  before: readonly Condition[],
  next: Omit<Condition, 'lastTransitionTime'>,
  now: number,
): Condition {
  const same = before.find((c) => c.type === next.type && c.status === next.status);
  return { ...next, lastTransitionTime: same?.lastTransitionTime ?? timeText(now) };
}

const QUANTITY: Readonly<Record<string, number>> = {
  ...{ m: 1e-3, '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 },
};
/** resource.Quantity as a number, precise enough to tell larger from smaller; NaN when it is
 *  none. */
export function quantity(text: string): number {
  const [, digits, suffix = ''] =
    /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)$/.exec(text) ?? [];
  return Number(digits) * (QUANTITY[suffix] ?? NaN);
}

const unique = <T>(items: Iterable<T>): T[] => [...new Set(items)];
const dictOf = (value: unknown): Dict => (value ?? {}) as Dict;
/** Up to three names, then how many more: for messages that people read. */
export function fewNames(names: readonly string[]): string {
  const rest = names.length - 3;
  return rest > 0 ? `${names.slice(0, 3).join(', ')} and ${rest} more` : names.join(', ');
}

// ═══ 3 IDENTITY · pure ═══════════════════════════════════════════════════════════════════════════
// How an identity is drawn and read, and the bodies of the pod and the claims that carry it.
// It must not know whether a member is healthy.

/** Kubernetes' safe alphabet (no vowels, no 0 1 3) in ASCII order, so that text order is age
 *  order. */
export const ALPHABET = '2456789bcdfghjklmnpqrstvwxz';
const BASE = ALPHABET.length;
const EPOCH_MS = Date.UTC(2020, 0, 1);
const IDENTITY = new RegExp(`^[${ALPHABET}]{10}$`);

function digits(value: number, width: number): string {
  let text = '';
  for (let rest = value; text.length < width; rest = Math.floor(rest / BASE)) {
    text = ALPHABET[rest % BASE] + text;
  }
  return text;
}

/** Second of birth since 2020, or -1 for an adopted identity, which carries no time. */
export function birthSecond(identity: string): number {
  if (!IDENTITY.test(identity)) return -1;
  return valueOf(identity.slice(0, 7));
}
export const birthMs = (identity: string): number => EPOCH_MS + birthSecond(identity) * 1000;

/** Oldest first. Identities that carry no time are older than all others. */
export function byAge(a: string, b: string): number {
  const order = Math.sign(birthSecond(a) - birthSecond(b));
  return order !== 0 ? order : a < b ? -1 : a > b ? 1 : 0;
}

/** Draws `count` identities, each younger than all known ones: the second used is never before that
 *  of the newest, so a clock set back cannot bring an identity back (I1), and within that second
 *  chance goes on above it, so that names sort by age. A crowded second is left for the next. */
export function allocate(
  count: number,
  known: ReadonlySet<string>,
  now: number,
  random: () => number,
): readonly string[] {
  const newest =
    [...known]
      .filter((id) => birthSecond(id) >= 0)
      .sort()
      .at(-1) ?? '';
  const second = Math.max(birthSecond(newest), Math.floor((now - EPOCH_MS) / 1000));
  const chances = BASE ** 3;
  const floor = second === birthSecond(newest) ? chanceOf(newest) + 1 : 0;
  const drawn = new Set<number>();
  const crowded = chances - floor < 2 * count;
  while (drawn.size < Math.min(count, chances / 2)) {
    drawn.add(
      crowded ? Math.floor(random() * chances) : floor + Math.floor(random() * (chances - floor)),
    );
  }
  return [...drawn]
    .sort((a, b) => a - b)
    .map((n) => digits(second + (crowded ? 1 : 0), 7) + digits(n, 3));
}
const valueOf = (text: string): number =>
  [...text].reduce((sum, c) => sum * BASE + ALPHABET.indexOf(c), 0);
const chanceOf = (identity: string): number => valueOf(identity.slice(7));

export const podName = (cluster: string, identity: string): string => `${cluster}-${identity}`;
export const claimName = (template: string, cluster: string, identity: string): string =>
  `${template}-${cluster}-${identity}`;
export const claimTemplateNames = (spec: Spec): readonly string[] =>
  spec.volumeClaimTemplates.map((t) => t.metadata?.name ?? '');
/** The identity that a pod's name carries, which no one can strip; '' for a name not of ours. */
export const identityOf = (pod: Pod, cluster: string): string =>
  pod.meta.name.startsWith(`${cluster}-`) ? pod.meta.name.slice(cluster.length + 1) : '';
/** Does this claim belong to the identity (and is not one that the template itself names)? */
export const isClaimOf = (name: string, cluster: string, identity: string): boolean =>
  name.endsWith(`-${cluster}-${identity}`);

/** The bare revision: hash of the canonical template, spelled in our alphabet. `collisionCount`
 *  moves it off a revision of another template with the same hash, as in ReplicaSet. */
export function revisionHash(template: unknown, collisionCount: number): string {
  const { metadata, spec } = (template ?? {}) as {
    metadata?: Record<string, unknown>;
    spec?: unknown;
  };
  const data = { labels: metadata?.['labels'], annotations: metadata?.['annotations'], spec };
  const text = canonicalJson(data) + (collisionCount > 0 ? String(collisionCount) : '');
  const hash = createHash('sha256').update(text).digest();
  return digits(hash.readUIntBE(0, 6), 10);
}

export const ourLabels = (cluster: string, identity: string): Dict => ({
  [MARK.cluster]: cluster,
  [MARK.identity]: identity,
});
const withoutOurs = (dict: unknown): Dict =>
  Object.fromEntries(Object.entries(dictOf(dict)).filter(([key]) => !key.startsWith('enge.me/')));

/** Labels of a member's pod: the selector's, then the template's, then ours, the later win. */
export function podLabels(cluster: StatefulCluster, identity: string): Dict {
  const { selector, template } = cluster.spec;
  const revision = revisionHash(template, cluster.status.collisionCount ?? 0);
  const labels = { ...selector.matchLabels, ...withoutOurs(template.metadata?.labels) };
  return { ...labels, [MARK.revision]: revision, ...ourLabels(cluster.meta.name, identity) };
}

export const ownerOf = (cluster: StatefulCluster): Owner => ({
  apiVersion: 'enge.me/v1alpha1',
  kind: 'StatefulCluster',
  name: cluster.meta.name,
  uid: cluster.meta.uid,
  controller: true,
  blockOwnerDeletion: true,
});

/** The taint manager must not set the time of a replacement: `liveness` does. Only where nodes can
 *  be read, and only for taints of which the template says nothing itself. */
function addedTolerations(template: V1PodTemplateSpec): readonly object[] {
  const own = template.spec?.tolerations ?? [];
  return ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']
    .filter(
      (key) =>
        !own.some((t) => (!t.key || t.key === key) && (!t.effect || t.effect === 'NoExecute')),
    )
    .map((key) => ({ key, operator: 'Exists', effect: 'NoExecute' }));
}

const childAnnotations = (own: unknown, replaces: string | undefined): Dict => ({
  ...withoutOurs(own),
  ...(replaces !== undefined && { [MARK.replaces]: replaces }),
});

/** Body of a member's pod. Child metadata comes from an allow-list: labels and annotations only. */
export function podBody(
  cluster: StatefulCluster,
  identity: string,
  replaces: string | undefined,
  nodesReadable: boolean,
): Body {
  const { template, serviceName } = cluster.spec;
  const name = podName(cluster.meta.name, identity);
  const names = claimTemplateNames(cluster.spec);
  const volumes = names.map((template) => ({
    name: template,
    persistentVolumeClaim: { claimName: claimName(template, cluster.meta.name, identity) },
  }));
  const others = (template.spec?.volumes ?? []).filter((v) => !names.includes(v.name));
  const added = nodesReadable ? addedTolerations(template) : [];
  const tolerations = [...(template.spec?.tolerations ?? []), ...added];
  const spec = {
    ...template.spec,
    ...(serviceName !== '' && { hostname: name, subdomain: serviceName }),
    ...(volumes.length + others.length > 0 && { volumes: [...others, ...volumes] }),
    ...(tolerations.length > 0 && { tolerations }),
  };
  const metadata = {
    name,
    labels: podLabels(cluster, identity),
    annotations: childAnnotations(template.metadata?.annotations, replaces),
    ownerReferences: [ownerOf(cluster)],
  };
  return { apiVersion: 'v1', kind: 'Pod', metadata, spec };
}

/** Bodies of a member's claims. An owner reference to the cluster is `whenDeleted: Delete`. */
export function claimBodies(
  cluster: StatefulCluster,
  identity: string,
  replaces: string | undefined,
): readonly Body[] {
  const owned = cluster.spec.persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete';
  return cluster.spec.volumeClaimTemplates.map((template) => ({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name: claimName(template.metadata?.name ?? '', cluster.meta.name, identity),
      labels: {
        ...cluster.spec.selector.matchLabels,
        ...withoutOurs(template.metadata?.labels),
        ...ourLabels(cluster.meta.name, identity),
      },
      annotations: childAnnotations(template.metadata?.annotations, replaces),
      ...(owned && { ownerReferences: [ownerOf(cluster)] }),
    },
    spec: template.spec,
  }));
}

/** The identity and the Reason that `enge.me/replaces` records, or undefined. */
export function predecessorOf(meta: Meta): { identity: string; reason: string } | undefined {
  const [identity, reason] = (meta.annotations[MARK.replaces] ?? '').split(' ');
  return identity && reason ? { identity, reason } : undefined;
}

// ═══ 4 HEALTH · pure ═════════════════════════════════════════════════════════════════════════════
// What is known of a member, and what follows from it. Facts end a member; judgements are about one
// that might come back, and the plan brakes them. It must not know how many members are wanted.

const isTerminal = (pod: Pod): boolean => pod.phase === 'Failed' || pod.phase === 'Succeeded';
const isBound = (claim: Claim): boolean => claim.volume !== '';
/** Ready now, or not Ready with a transition after the start: a pod's first Ready=False is written
 *  at its start. */
const wasReady = (pod: Pod): boolean =>
  pod.ready || (pod.readySinceMs ?? 0) > (pod.startedMs ?? Infinity) + 1000;
/** The pod has ended, or is about to, and will not come back. */
const hasEnded = (m: Member): boolean =>
  m.pod === undefined || isTerminating(m.pod) || isTerminal(m.pod);
/** Its claims were made, its pod never was: a creation that a crash cut short. */
export const isInterrupted = (m: Member): boolean =>
  m.gone && !m.retired && m.claims.length > 0 && !m.claims.some(isBound);

/** Ready for `minReadySeconds`, as Deployment counts it, and neither ending nor ended. */
export function isAvailable(pod: Pod, minReadySeconds: number, now: number): boolean {
  if (!pod.ready || isTerminating(pod) || isTerminal(pod)) return false;
  return minReadySeconds === 0 || now - (pod.readySinceMs ?? now) >= minReadySeconds * 1000;
}

/** Kubernetes turns a bad node into deletions; these DisruptionTarget reasons say so, and what they
 *  are evidence of. TerminationByKubelet also stands for an eviction by node pressure. */
const NODE_DISRUPTIONS: Readonly<Record<string, Loss>> = {
  DeletionByTaintManager: 'NodeUnreachable',
  DeletionByPodGC: 'NodeGone',
  TerminationByKubelet: 'PodFailed',
};

/** The node that the member is on; of a pod whose object is gone, where it or its claims were. */
export function nodeNameOf(m: Member): string {
  if (m.pod) return m.pod.node;
  return m.lastPod?.node || (m.claims.find((c) => c.selectedNode !== '')?.selectedNode ?? '');
}
/** What the node says of the member; `Healthy` where nothing is known. */
export function viewNode(m: Member, nodes: Snapshot['nodes']): NodeView {
  const name = nodeNameOf(m);
  const node = nodes?.get(name);
  if (nodes === undefined || name === '') return { state: 'Healthy', sinceMs: undefined };
  if (node === undefined) return { state: 'Absent', sinceMs: undefined };
  if (node.outOfService) return { state: 'OutOfService', sinceMs: undefined };
  return { state: node.ready ? 'Healthy' : 'NotReady', sinceMs: node.readySinceMs };
}

/** What speaks about the node rather than about the pod; undefined on a healthy one. */
export function nodeEvidence(m: Member, node: NodeView): Omit<Suspicion, 'seconds'> | undefined {
  if (node.state === 'Absent') return { reason: 'NodeGone', sinceMs: undefined };
  if (node.state === 'NotReady') return { reason: 'NodeUnreachable', sinceMs: node.sinceMs };
  const last = m.pod ?? m.lastPod;
  const reason = hasEnded(m) ? NODE_DISRUPTIONS[last?.disruption ?? ''] : undefined;
  return reason && { reason, sinceMs: last?.disruptedMs };
}

/** Nodes that exist, are in service and satisfy every bound volume; undefined: any node does. */
export function nodesAllowed(
  claims: readonly Claim[],
  s: Pick<Snapshot, 'nodes' | 'volumes'>,
): readonly Node[] | undefined {
  const terms = claims.flatMap((c) => {
    const volume = s.volumes.get(c.volume);
    return volume?.terms ? [volume.terms] : [];
  });
  if (s.nodes === undefined || terms.length === 0) return undefined;
  const allows = (node: Node): boolean =>
    terms.every((any) => any.some((all) => all.every((t) => termMatches(t, node.meta.labels))));
  return [...s.nodes.values()].filter((node) => !node.outOfService && allows(node));
}

/** How long evidence counts. Up to 60 s it counts only as far as this process watched it itself;
 *  then the object's own timestamps are believed. So neither a restart nor one clock decides. */
export function lastedMs(sinceMs: number | undefined, watchedMs: number, now: number): number {
  const own = sinceMs === undefined ? watchedMs : now - sinceMs;
  return watchedMs < LIMITS.trustMs
    ? Math.max(0, Math.min(watchedMs, own))
    : Math.max(watchedMs, own);
}

const lost = (reason: Loss, sinceMs: number | undefined): Verdict => ({
  health: 'Lost',
  reason,
  sinceMs: sinceMs ?? 0,
});

/** Facts, the first that holds; undefined when none does. */
function judgeFacts(m: Member, node: NodeView, spec: Spec): Verdict | undefined {
  const { pod } = m;
  const claimGoing = m.missing.length > 0 || m.claims.some(isTerminating);
  if (m.retired || (m.deletionIsOurs && (!pod || isTerminating(pod)))) {
    return { health: 'Terminating', sinceMs: pod?.meta.deletedMs ?? m.retired?.atMs ?? 0 };
  }
  if (!pod && !m.gone) return { health: 'Pending', sinceMs: 0 }; // Not known yet: plan asks.
  if (pod?.meta.annotations[MARK.replace] === 'true') return lost('ReplaceRequested', 0);
  if (node.state === 'OutOfService') return lost('NodeOutOfService', 0);
  // A member that is to return needs all its claims; a half-deleted one is never used.
  if (!pod && claimGoing && spec.replacementPolicy === 'WhenVolumesLost')
    return lost('ClaimGone', 0);
  if (nodeEvidence(m, node) === undefined) {
    if (!pod || isTerminating(pod)) return lost('PodDeleted', pod?.meta.deletedMs);
    if (isTerminal(pod)) return lost('PodFailed', pod.readySinceMs);
  }
  if (pod?.phase === 'Pending' && claimGoing) return lost('ClaimGone', 0);
  return undefined;
}

/** Judgements whose evidence is there, each with its threshold, in order. */
function suspicions(m: Member, node: NodeView, spec: Spec): readonly Suspicion[] {
  const { pod } = m;
  const l = spec.liveness;
  const list: Suspicion[] = [];
  const suspect = (reason: Loss, seconds: number, sinceMs?: number): void =>
    void list.push({ reason, seconds, sinceMs });
  const speaks = nodeEvidence(m, node);
  const nodeSeconds =
    speaks?.reason === 'NodeUnreachable' ? l.nodeUnreachableSeconds : l.nodeGoneSeconds;
  if (speaks) suspect(speaks.reason, nodeSeconds, speaks.sinceMs);
  if (m.volumesDownInMs === 0 || m.claims.some((c) => c.phase === 'Lost')) {
    suspect('VolumeLost', l.volumeLostSeconds);
  }
  if (!pod || pod.ready || hasEnded(m)) return list;
  if (wasReady(pod) && l.unreadySeconds > 0) suspect('Unready', l.unreadySeconds, pod.readySinceMs);
  if (!wasReady(pod) && l.startupSeconds > 0 && pod.scheduledMs !== undefined) {
    suspect('StartupTimeout', l.startupSeconds, pod.scheduledMs);
  }
  if (l.maxRestarts > 0 && pod.crashLooping && pod.restarts - m.restartsBefore > l.maxRestarts) {
    suspect('CrashLoop', 0, pod.readySinceMs);
  }
  return list;
}
/** Under this key the first sight of evidence is remembered. A changed transition time is new
 *  evidence, so a flap between two looks is not counted as one. */
export const evidenceKey = (m: Member, reason: Loss, sinceMs?: number): string =>
  [m.identity, (m.pod ?? m.lastPod)?.meta.uid ?? '', reason, sinceMs ?? ''].join('/');

/** What the pod's own conditions say, when nothing speaks of a loss. */
function judgePod(m: Member, spec: Spec, now: number): Verdict {
  const { pod } = m;
  if (!pod) return { health: 'Pending', sinceMs: 0 };
  const sinceMs = pod.readySinceMs ?? pod.meta.createdMs;
  if (hasEnded(m)) return { health: 'Unready', sinceMs };
  if (isAvailable(pod, spec.minReadySeconds, now)) return { health: 'Available', sinceMs };
  if (pod.ready) {
    return { health: 'Ready', sinceMs, wakeMs: sinceMs + spec.minReadySeconds * 1000 - now };
  }
  if (wasReady(pod)) return { health: 'Unready', sinceMs };
  return { health: pod.node === '' ? 'Pending' : 'Starting', sinceMs: pod.meta.createdMs };
}

/** Judges one member: facts first, then judgements, then its own word. A pod that is merely
 *  starting is never Lost for not being Ready. */
export function judge(
  m: Member,
  node: NodeView,
  spec: Spec,
  now: number,
  watchedMs: (evidenceKey: string) => number,
): Verdict {
  const fact = judgeFacts(m, node, spec);
  if (fact) return fact;
  const own = judgePod(m, spec, now);
  let wakeMs = Math.min(own.wakeMs ?? Infinity, m.volumesDownInMs || Infinity);
  for (const { reason, seconds, sinceMs } of suspicions(m, node, spec)) {
    const watched = watchedMs(evidenceKey(m, reason, sinceMs));
    const lasted = lastedMs(sinceMs, watched, now);
    if (lasted >= seconds * 1000) {
      return { health: 'Lost', reason, judged: true, sinceMs: sinceMs ?? own.sinceMs };
    }
    const untrusted = watched < LIMITS.trustMs ? LIMITS.trustMs - watched : Infinity;
    wakeMs = Math.min(wakeMs, seconds * 1000 - lasted, untrusted);
  }
  return { ...own, wakeMs, suspected: nodeEvidence(m, node) !== undefined };
}

// ═══ 5 PLAN · pure ═══════════════════════════════════════════════════════════════════════════════
// From a snapshot to actions. plan() owns the ifs, the leaves compute. What must be read live
// before it is acted upon is asked for (`ask`), and plan() is called again with the answer in the
// snapshot. Nothing here waits, reads a clock or draws by itself.

const keyOfRef = (ref: Ref): string => `${ref.kind}/${ref.name}`;
const refOf = (kind: Ref['kind'], name: string): Ref => ({ kind, name });
/** Claims that the member's pod mounts, or that its next pod would: only those of its identity. */
function claimsExpected(s: Snapshot, identity: string, pod: Pod | undefined): readonly string[] {
  const { name } = s.cluster.meta;
  if (pod) return pod.claims.filter((claim) => isClaimOf(claim, name, identity));
  return claimTemplateNames(s.cluster.spec).map((t) => claimName(t, name, identity));
}

/** At first sight, the restarts of a pod that was Ready once are taken for old ones. */
const calmRestarts = (pod: Pod | undefined): number => (pod && wasReady(pod) ? pod.restarts : 0);
function memberOf(
  s: Snapshot,
  identity: string,
  pod: Pod | undefined,
  claims: Claim[],
  now: number,
): Member {
  const lastPod = pod ? undefined : s.memory.lastPods.get(identity);
  const marked = claims.find((c) => c.meta.labels[MARK.retired] === 'true');
  const at = Date.parse(marked?.meta.annotations[MARK.retiredAt] ?? '');
  const absent = claimsExpected(s, identity, pod ?? lastPod).filter((name) => !s.claims.has(name));
  const uid = pod?.meta.uid ?? lastPod?.meta.uid ?? '';
  const unscheduled = pod && pod.node === '' && !isTerminating(pod) && !isTerminal(pod);
  const allowed = unscheduled ? nodesAllowed(claims, s) : undefined;
  const limitMs = s.cluster.spec.liveness.nodeUnreachableSeconds * 1000;
  // A node that was not Ready for so long no longer counts as one that its volumes may use.
  const leftMs = (n: Node): number =>
    n.ready ? Infinity : (n.readySinceMs ?? now) + limitMs - now;
  return {
    identity,
    pod,
    lastPod,
    gone: !pod && s.live.has(`pods/${podName(s.cluster.meta.name, identity)}`),
    claims,
    missing: absent.filter((name) => s.live.has(`persistentvolumeclaims/${name}`)),
    retired: marked && {
      reason: (marked.meta.annotations[MARK.retired] ?? 'Released') as Reason,
      policy: marked.meta.annotations[MARK.retiredPolicy] === 'Delete' ? 'Delete' : 'Retain',
      atMs: Number.isNaN(at) ? marked.meta.createdMs : at,
    },
    deletionIsOurs: s.memory.deletedUids.has(uid),
    volumesDownInMs: allowed ? Math.max(0, ...allowed.map(leftMs)) : Infinity,
    restartsBefore: s.memory.restartsBefore.get(uid) ?? calmRestarts(pod),
  };
}

/** Groups pods and claims by identity. Counting is by controller UID: a pod that somebody else, or
 *  nobody, controls is not a member, and neither are the claims behind it (I8). */
export function membersOf(s: Snapshot, now: number): readonly Member[] {
  const { uid, name } = s.cluster.meta;
  const found = new Map<string, { pod?: Pod; claims: Claim[] }>();
  const at = (identity: string): { pod?: Pod; claims: Claim[] } => {
    const entry = found.get(identity) ?? { claims: [] };
    found.set(identity, entry);
    return entry;
  };
  const foreign = new Set<string>();
  for (const pod of s.pods.values()) {
    const identity = identityOf(pod, name);
    if (isControlledBy(pod.meta, uid)) at(identity).pod = pod;
    else foreign.add(identity);
  }
  for (const claim of s.claims.values()) {
    const identity = claim.meta.labels[MARK.identity] ?? '';
    const ours = isControlledBy(claim.meta, uid) || !hasController(claim.meta);
    if (ours && isClaimOf(claim.meta.name, name, identity)) at(identity).claims.push(claim);
  }
  for (const identity of s.memory.lastPods.keys()) at(identity);
  return [...found.keys()]
    .filter((identity) => identity !== '' && !foreign.has(identity))
    .filter((identity) => at(identity).pod || !s.memory.unfinished.has(podName(name, identity)))
    .sort(byAge)
    .map((identity) => {
      const { pod, claims } = at(identity);
      return memberOf(s, identity, pod, claims, now);
    });
}

/** Why nothing can be created from this spec, as a sentence for `Stalled`, or ''. The CRD's CEL
 *  rules refuse most of it earlier; an object that is older than the rules gets here. */
export function specProblem(cluster: StatefulCluster): string {
  const { selector, template, suspend } = cluster.spec;
  const terms =
    Object.keys(selector.matchLabels ?? {}).length + (selector.matchExpressions ?? []).length;
  if (terms === 0) return 'spec.selector is empty: it would select every pod';
  if (!selectorMatches(selector, podLabels(cluster, 'identity'))) {
    return 'spec.selector does not match the labels that pods get from spec.template';
  }
  if ((template.spec?.containers ?? []).length === 0) return 'spec.template has no containers';
  if (suspend)
    return 'spec.suspend is not served by this version: nothing is done until it is false';
  return '';
}

/** Does this loss end the identity, or does the member return under it (`WhenVolumesLost`)? */
function endsIdentity(s: Snapshot, m: Member, reason: Loss): boolean {
  const { replacementPolicy, volumeClaimTemplates } = s.cluster.spec;
  if (replacementPolicy === 'Always' || volumeClaimTemplates.length === 0) return true;
  if (isInterrupted(m)) return true; // Nothing was ever written to its volumes.
  switch (reason) {
    case 'PodDeleted':
    case 'PodFailed':
      return false;
    case 'NodeUnreachable':
      return m.pod !== undefined; // The object on a silent node will not go by itself.
    case 'NodeGone':
    case 'NodeOutOfService':
      return nodesAllowed(m.claims, s)?.length === 0; // Its volume is pinned there.
    default:
      return true;
  }
}

/** A first standing, before the brake. `undecided`: claims whose pod this process never saw may be
 *  a creation in flight, so they are left alone until they are a minute old. */
function firstStanding(s: Snapshot, m: Member, verdict: Verdict, now: number): Standing {
  if (verdict.health === 'Terminating') return 'condemned';
  const returns = s.cluster.spec.replacementPolicy === 'WhenVolumesLost';
  // A bound claim may be a member between two pods: it keeps its place until that is known.
  const waits = isSettled(m, now) || m.claims.some(isBound);
  if (!m.pod && !m.gone) return waits ? 'live' : 'undecided';
  if (isInterrupted(m)) return m.lastPod ? 'letGo' : 'undecided';
  if (verdict.health === 'Lost') {
    if (endsIdentity(s, m, verdict.reason ?? 'PodDeleted'))
      return verdict.judged ? 'withheld' : 'letGo';
    return 'returning';
  }
  return !m.pod && returns ? 'returning' : 'live';
}
const isLive = (j: Judged): boolean => ['live', 'withheld', 'returning'].includes(j.standing);
const idOf = (j: Judged): string => j.member.identity;
/** Old enough, or seen with a pod, so that its absence means something. */
const isSettled = (m: Member, now: number): boolean =>
  m.lastPod !== undefined ||
  m.retired !== undefined ||
  m.claims.some((c) => c.selectedNode !== '') || // The scheduler has seen its pod.
  m.claims.every((c) => now - c.meta.createdMs >= LIMITS.settleMs);

/** The brake's limit: `liveness.maxReplacements`, or max(1, ⌊(replicas−1)/2⌋), 0 at 1 replica. */
export function maxReplacementsOf(spec: Spec): number {
  const usual = spec.replicas <= 1 ? 0 : Math.max(1, Math.floor((spec.replicas - 1) / 2));
  const { maxReplacements } = spec.liveness;
  return maxReplacements === undefined
    ? usual
    : scaledValue(maxReplacements, spec.replicas, 'down');
}
/** Rounded down as Deployment does, and at least 1: nothing could ever be updated or given up
 *  else. */
export const maxUnavailableOf = (spec: Spec): number =>
  Math.max(1, scaledValue(spec.updateStrategy.rollingUpdate.maxUnavailable, spec.replicas, 'down'));

const isJudged = (reason: string): boolean => JUDGEMENTS.some((r) => r === reason);
const isReplaced = (reason: string): boolean => isJudged(reason) || FACTS.some((r) => r === reason);
/** The member ended by itself, or was judged: not by a request or a plain deletion. */
const isOwnEnd = (reason: string): boolean => reason === 'PodFailed' || isJudged(reason);
/** Made for a judged loss, not yet Available, not itself Lost: the brake counts it. */
function isReplacementInFlight(j: Judged): boolean {
  const made = j.member.pod && predecessorOf(j.member.pod.meta);
  if (!made || !isOwnEnd(made.reason)) return false;
  return j.standing === 'live' && ['Pending', 'Starting', 'Ready'].includes(j.verdict.health);
}

/** The brake: while judged losses and replacements in flight exceed the limit, none is let go.
 *  So an outage of most nodes never makes a cluster give itself up, and the only copy is never
 *  judged. */
function planBrake(s: Snapshot, all: readonly Judged[], now: number) {
  const { replicas } = s.cluster.spec;
  const judged = all.filter((j) => j.standing === 'withheld');
  // Nodes of one outage fall silent one by one: the first must not be judged as if it were alone.
  const suspects = all.filter((j) => j.standing !== 'withheld' && isLive(j) && j.verdict.suspected);
  const ended = judged.filter((j) => hasEnded(j.member)).length;
  const awaited = lossesToReplace(s, all, now).filter(([, reason]) => isOwnEnd(reason)).length;
  const missing = Math.min(awaited, Math.max(0, replicas - all.filter(isLive).length));
  const inFlight = all.filter(isReplacementInFlight).length + missing;
  const limit = maxReplacementsOf(s.cluster.spec);
  const away = judged.length + suspects.length;
  const last = s.memory.outage;
  const eased = last && { limit: last.limit, easedAt: Math.min(last.easedAt, s.uptime) };
  const outage = away > limit ? { limit, easedAt: Infinity } : away > 0 ? eased : undefined;
  // … and they return one by one: the last are waited for, unless the limit was raised.
  const held = outage && limit <= outage.limit;
  const ms = held ? outage.easedAt + LIMITS.returnMs - s.uptime : 0;
  const waits = away <= limit && ms > 0;
  if (judged.length === 0 || (away + inFlight <= limit && !waits)) {
    return { open: true, why: '', wakeMs: Infinity, outage };
  }
  const who = judged.map((j) => `${j.member.identity} ${j.verdict.reason}`);
  const why = [
    `${judged.length} of ${replicas} members are judged lost (${fewNames(who)})`,
    ...(ended > 0 ? [`${ended} pods have ended and will not return by themselves`] : []),
    ...(suspects.length > 0 ? [`the nodes of ${suspects.length} more are not Ready`] : []),
    ...(inFlight > 0 ? [`${inFlight} replacements are not yet Available`] : []),
    ...(waits ? ['others have just returned, so these are waited for'] : []),
    `at most ${limit} may be replaced at a time: when enough members return, when ` +
      `spec.liveness.maxReplacements is raised, or when a pod is annotated ${MARK.replace}=true`,
  ].join('; ');
  return { open: false, why, wakeMs: waits ? ms : Infinity, outage };
}

/** Its user took the pod out of `spec.selector`; labels of ours that it lacks are put back. */
const isTakenOut = ({ cluster: { meta, spec } }: Snapshot, pod: Pod): boolean => {
  const ours = ourLabels(meta.name, identityOf(pod, meta.name));
  return !selectorMatches(spec.selector, { ...pod.meta.labels, ...ours });
};
/** Identities that a user asked to replace and that may go now: I5 for those that are available,
 *  oldest request first; the others cost nothing. */
function requestsServed(s: Snapshot, all: readonly Judged[], now: number): ReadonlySet<string> {
  const { spec } = s.cluster;
  // One that is released in this pass is as good as gone.
  const staying = all.filter(({ member: { pod } }) => !pod || !isTakenOut(s, pod));
  const isUp = (j: Judged): boolean =>
    j.member.pod !== undefined && isAvailable(j.member.pod, spec.minReadySeconds, now);
  const askedMs = (j: Judged): number => watchedMsOf(s, evidenceKey(j.member, 'ReplaceRequested'));
  const asked = staying.filter((j) => j.verdict.reason === 'ReplaceRequested');
  const up = asked.filter(isUp).sort((a, b) => askedMs(b) - askedMs(a));
  const others = staying.filter((j) => j.verdict.health === 'Available').length;
  const spare = others + up.length - (spec.replicas - maxUnavailableOf(spec));
  const served = [...asked.filter((j) => !isUp(j)), ...up.slice(0, Math.max(0, spare))];
  return new Set(served.map((j) => j.member.identity));
}

/** A judgement is acted upon only after pod and node were read live in this pass: a stale cache
 *  must not give a member up. */
function liveFirst(s: Snapshot, j: Judged): readonly Ref[] {
  const node = nodeNameOf(j.member);
  const refs = [
    ...(j.member.pod ? [refOf('pods', j.member.pod.meta.name)] : []),
    ...(node !== '' && s.nodes ? [refOf('nodes', node)] : []),
  ];
  return refs.filter((ref) => !s.live.has(keyOfRef(ref)));
}

const watchedMsOf = (s: Snapshot, key: string): number =>
  s.uptime - (s.memory.firstSeen.get(key) ?? s.uptime);
/** Keys of all evidence in force. */
function evidenceOf(s: Snapshot, members: readonly Judged[]): readonly string[] {
  return members.flatMap(({ member: m, verdict }) => {
    const asked = verdict.reason === 'ReplaceRequested' ? [evidenceKey(m, verdict.reason)] : [];
    const found = suspicions(m, viewNode(m, s.nodes), s.cluster.spec);
    return [...asked, ...found.map((x) => evidenceKey(m, x.reason, x.sinceMs))];
  });
}

/** Final standings: who is let go now, who is withheld, and what must be read live before. */
function planStandings(s: Snapshot, now: number) {
  const first = membersOf(s, now).map((member): Judged => {
    const node = viewNode(member, s.nodes);
    const verdict = judge(member, node, s.cluster.spec, now, (key) => watchedMsOf(s, key));
    return { member, verdict, standing: firstStanding(s, member, verdict, now) };
  });
  const brake = planBrake(s, first, now);
  const served = requestsServed(s, first, now);
  const ask: Ref[] = first.flatMap((j) => questionsAbout(s, j, now));
  const available = first.filter((j) => j.verdict.health === 'Available');
  const others = available.map((j) => refOf('pods', podName(s.cluster.meta.name, idOf(j))));
  const members = first.map((j): Judged => {
    if (j.verdict.reason === 'ReplaceRequested' && j.standing === 'letGo') {
      // I5 rests on the others being Available: that is read live.
      const unread = served.has(j.member.identity)
        ? others.filter((ref) => !s.live.has(keyOfRef(ref)))
        : [];
      ask.push(...unread);
      if (served.has(j.member.identity) && unread.length === 0) return j;
      return { ...j, verdict: judgePod(j.member, s.cluster.spec, now), standing: 'live' };
    }
    if (j.standing !== 'withheld' || !brake.open) return j;
    const refs = liveFirst(s, j);
    ask.push(...refs);
    return refs.length === 0 ? { ...j, standing: 'letGo' } : j;
  });
  return { first, members, ask, brake };
}

/** Claims of its pod that the cache lacks: absent, or not seen yet; none may be left unmarked. */
const unseenClaims = (s: Snapshot, m: Member): readonly Ref[] =>
  claimsExpected(s, m.identity, m.pod ?? m.lastPod)
    .filter((claim) => !s.claims.has(claim) && !s.live.has(`persistentvolumeclaims/${claim}`))
    .map((claim) => refOf('persistentvolumeclaims', claim));

/** What must be read live to know this member: absence of its pod, absence of a claim, a volume. */
function questionsAbout(s: Snapshot, j: Judged, now: number): readonly Ref[] {
  const { member: m, standing } = j;
  const { name } = s.cluster.meta;
  const refs: Ref[] = [];
  const freed = m.claims.some((c) => c.meta.annotations[MARK.retiredPolicy] === 'Delete');
  const matters = standing === 'condemned' ? freed : isSettled(m, now);
  if (!m.pod && matters) refs.push(refOf('pods', podName(name, m.identity)));
  const waits = m.pod ? m.pod.phase === 'Pending' : standing === 'returning';
  if ((waits && standing !== 'condemned') || standing === 'letGo') refs.push(...unseenClaims(s, m));
  const unscheduled = m.pod?.node === '';
  if (s.volumesReadable && s.nodes && (unscheduled || j.verdict.health === 'Lost')) {
    const bound = m.claims.filter((c) => isBound(c) && !s.volumes.has(c.volume));
    refs.push(...bound.map((c) => refOf('persistentvolumes', c.volume)));
  }
  return refs.filter((ref) => !s.live.has(keyOfRef(ref)));
}

/** Adopt, relabel, release. Orphans that carry our labels and match are adopted after a live read
 *  of the cluster (Kubernetes' own adoption rule); a stripped label of ours is put back; a pod that
 *  its user took out of the selector is released with its data. */
function planKeeping(s: Snapshot): { actions: Action[]; ask: Ref[]; released: Set<string> } {
  const { meta } = s.cluster;
  const kept = { actions: [] as Action[], ask: [] as Ref[], released: new Set<string>() };
  const retired = [...s.claims.values()].filter((c) => c.meta.labels[MARK.retired] === 'true');
  const ended = new Set(['', ...retired.map((c) => c.meta.labels[MARK.identity] ?? '')]);
  for (const pod of s.pods.values()) {
    if (isTerminating(pod)) continue;
    const identity = identityOf(pod, meta.name);
    const ours = ourLabels(meta.name, identity);
    const lacks = Object.entries(ours).some(([key, value]) => pod.meta.labels[key] !== value);
    const takenOut = isTakenOut(s, pod);
    if (isControlledBy(pod.meta, meta.uid)) {
      if (takenOut) {
        kept.actions.push({ do: 'ReleasePod', pod, because: 'Released' });
        kept.released.add(identity);
      } else if (lacks)
        kept.actions.push({ do: 'RelabelPod', pod, identity, because: 'Relabelled' });
    } else if (!hasController(pod.meta) && !takenOut && !lacks && !ended.has(identity)) {
      if (s.live.has(`statefulclusters/${meta.name}`)) {
        kept.actions.push({ do: 'AdoptPod', pod, because: 'Adopted' });
      } else kept.ask.push(refOf('statefulclusters', meta.name));
    }
  }
  return kept;
}

/** Ends identities: marks every claim (before the pod goes, so that a crash leaves no unmarked
 *  one), then deletes the pod. Unbound claims without a pod hold nothing and are deleted at
 *  once. */
function planEnd(s: Snapshot, j: Judged, because: Reason, policy: DataPolicy): readonly Action[] {
  const { pod, claims, gone } = j.member;
  const unmarked = claims.filter((c) => c.meta.labels[MARK.retired] !== 'true');
  const stays = because === 'Released' || !pod || isTerminating(pod);
  return [
    ...unmarked.map((claim): Action => {
      if (gone && !isBound(claim)) return { do: 'DeleteClaim', claim, because: 'Interrupted' };
      // What a former cluster of this name retained is not freed by the policy of this one.
      const older = claim.meta.createdMs < s.cluster.meta.createdMs;
      return { do: 'RetireClaim', claim, policy: older ? 'Retain' : policy, because };
    }),
    ...(stays ? [] : [{ do: 'DeletePod', pod, because } as const]),
  ];
}

/** The order of scale-in: what is worth least goes first. */
export function scaleInOrder(all: readonly Judged[], updateRevision: string): readonly Judged[] {
  const perNode = new Map<string, number>();
  for (const { member } of all) {
    const node = member.pod?.node ?? '';
    perNode.set(node, (perNode.get(node) ?? 0) + 1);
  }
  const ranks = (j: Judged): readonly number[] => {
    const pod = j.member.pod;
    const cost = Number.parseInt(pod?.meta.annotations[MARK.deletionCost] ?? '0', 10);
    return [
      j.verdict.health === 'Lost' ? 0 : 1,
      pod && pod.node !== '' ? 1 : 0,
      !pod || pod.phase === 'Pending' ? 0 : 1,
      pod?.ready === true ? 1 : 0,
      j.verdict.health === 'Available' ? 1 : 0,
      Number.isNaN(cost) ? 0 : cost,
      pod?.meta.labels[MARK.revision] === updateRevision ? 1 : 0,
      -(perNode.get(pod?.node ?? '') ?? 0),
    ];
  };
  const ranked = all.map((j) => ({ j, rank: ranks(j) }));
  ranked.sort((a, b) => {
    const at = a.rank.findIndex((value, i) => value !== b.rank[i]);
    if (at < 0) return byAge(b.j.member.identity, a.j.member.identity);
    return (a.rank[at] ?? 0) - (b.rank[at] ?? 0);
  });
  return ranked.map(({ j }) => j);
}

/** Being brought up: OrderedReady waits for it, but never for a Lost or a long-unready member. */
const isComingUp = (j: Judged, now: number): boolean =>
  (j.standing === 'live' || j.standing === 'returning') &&
  ['Pending', 'Starting', 'Ready'].includes(j.verdict.health) &&
  now - (j.member.pod?.meta.createdMs ?? now) < LIMITS.bringUpMaxMs;
const isLeaving = (j: Judged, now: number): boolean =>
  j.standing === 'condemned' && now < (j.member.pod?.meta.deletedMs ?? 0) + LIMITS.leavingMaxMs;

/** Members that ended by themselves soon after their birth, newest last: a broken template must not
 *  burn through identities. Durable (marks and status), so the same after a restart. */
function earlyEnds(s: Snapshot, members: readonly Judged[], now: number): readonly number[] {
  const ends = new Map<string, { reason: string; atMs: number }>();
  for (const r of s.cluster.status.retired ?? []) {
    ends.set(r.identity, { reason: r.reason, atMs: Date.parse(r.at) });
  }
  for (const { member, verdict, standing } of members) {
    const ending = standing === 'letGo' && { reason: verdict.reason ?? '', atMs: now };
    const end = member.retired ?? ending;
    if (end) ends.set(member.identity, end);
  }
  return [...ends]
    .filter(([, end]) => isOwnEnd(end.reason))
    .filter(([id, end]) => birthSecond(id) >= 0 && end.atMs - birthMs(id) <= LIMITS.earlyEndMs)
    .map(([, end]) => end.atMs)
    .sort((a, b) => a - b);
}

/** 10 s doubling to 5 min. */
const doubled = (times: number): number =>
  Math.min(LIMITS.backoffMinMs * 2 ** Math.min(times - 1, 10), LIMITS.backoffMaxMs);
/** 10 s doubling to 5 min from the second such end within 10 min; 10 quiet minutes reset it. */
export function earlyEndHoldMs(ends: readonly number[], now: number): number {
  const last = ends.at(-1);
  if (last === undefined || now - last > LIMITS.earlyEndMs) return 0;
  let streak = 1;
  for (let i = ends.length - 1; i > 0; i--) {
    if ((ends[i] ?? 0) - (ends[i - 1] ?? 0) > LIMITS.earlyEndMs) break;
    streak++;
  }
  if (streak < 2) return 0;
  return Math.max(0, last + doubled(streak - 1) - now);
}

/** Who replaces whom: identity → its successor, as pods and claims record it. */
function successors(s: Snapshot): Map<string, string> {
  const found = new Map<string, string>();
  for (const { meta } of [...s.pods.values(), ...s.claims.values()]) {
    const old = predecessorOf(meta);
    if (old) found.set(old.identity, meta.labels[MARK.identity] ?? '');
  }
  return found;
}

/** Losses that no member replaces yet, oldest first: those of this pass, then what the marks and
 *  the status of earlier passes say. Names the predecessor of a new member, decides nothing
 *  else. */
function lossesToReplace(
  s: Snapshot,
  members: readonly Judged[],
  now: number,
): readonly [string, Reason][] {
  const named = successors(s);
  // Later, a new member is not a replacement any more, unless creations were refused all the time.
  const isRecent = (atMs: number): boolean =>
    s.memory.refusal !== undefined || now - atMs <= LIMITS.earlyEndMs;
  const losses = new Map<string, Reason>();
  for (const r of s.cluster.status.retired ?? []) {
    if (isRecent(Date.parse(r.at))) losses.set(r.identity, r.reason as Reason);
    if (r.replacedBy !== '') named.set(r.identity, r.replacedBy);
  }
  for (const { member, verdict, standing } of members) {
    const { retired } = member;
    if (retired && isRecent(retired.atMs)) losses.set(member.identity, retired.reason);
    if (standing === 'letGo' && !losses.has(member.identity)) {
      losses.set(member.identity, verdict.reason ?? 'PodDeleted');
    }
  }
  return [...losses]
    .filter(([identity, reason]) => !named.has(identity) && isReplaced(reason))
    .sort(([a], [b]) => byAge(a, b));
}
/** Every identity of which there is a trace, released and retired ones too. */
function identitiesOf(s: Snapshot): ReadonlySet<string> {
  const pods = [...s.pods.values()].map((pod) => identityOf(pod, s.cluster.meta.name));
  const claims = [...s.claims.values()].map((c) => c.meta.labels[MARK.identity] ?? '');
  const coming = [...s.memory.unfinished].map((name) => name.slice(s.cluster.meta.name.length + 1));
  const others = [...s.memory.lastPods.keys(), s.cluster.status.newestIdentity ?? ''];
  return new Set([...pods, ...claims, ...coming, ...others]);
}

const birthOf = (s: Snapshot, identity: string, replaces: string | undefined): Birth => ({
  identity,
  pod: podBody(s.cluster, identity, replaces, s.nodes !== undefined),
  claims: claimBodies(s.cluster, identity, replaces),
});

/** New members for the deficit. Each names the loss it replaces; the rest are ScaledOut. */
function planBirths(
  s: Snapshot,
  members: readonly Judged[],
  deficit: number,
  now: number,
  random: () => number,
): readonly Action[] {
  const known = identitiesOf(s);
  const losses = lossesToReplace(s, members, now);
  return allocate(deficit, known, now, random).map((identity, i): Action => {
    const loss = losses[i];
    const replaces = loss && loss.join(' ');
    const birth = birthOf(s, identity, replaces);
    if (!loss) return { do: 'CreateMember', birth, because: 'ScaledOut' };
    return { do: 'CreateMember', birth, replaces: loss[0], because: loss[1] };
  });
}

/** A member between two pods gets its next pod on its own claims, once its object is gone (I1). One
 *  that ends again and again returns ever more slowly. */
function planReturns(s: Snapshot, members: readonly Judged[]) {
  const actions: Action[] = [];
  let wakeMs = Infinity;
  for (const { member, standing } of members) {
    if (standing !== 'returning') continue;
    const { pod, gone, identity } = member;
    if (pod && isTerminal(pod) && !isTerminating(pod)) {
      actions.push({ do: 'DeletePod', pod, because: 'Returned' });
    }
    if (!gone || member.missing.length > 0) continue;
    assert(pod === undefined, 'I1: a member returns only once its former pod object is gone');
    const last = s.memory.returns.get(identity);
    const wait = last ? last.atUptime + doubled(last.times) - s.uptime : 0;
    if (wait > 0) wakeMs = Math.min(wakeMs, wait);
    else {
      const birth = birthOf(s, identity, undefined);
      const has = new Set(member.claims.map((c) => c.meta.name));
      const claims = birth.claims.filter((c) => !has.has(c.metadata.name));
      actions.push({ do: 'CreateMember', birth: { ...birth, claims }, because: 'Returned' });
    }
  }
  return { actions, wakeMs };
}

/** Why creations wait, and how long: the API server's refusal, or members that keep ending
 *  early. */
function creationHold(
  s: Snapshot,
  members: readonly Judged[],
  now: number,
): { ms: number; why: string } {
  const { refusal } = s.memory;
  if (refusal && s.uptime < refusal.untilUptime) {
    return { ms: refusal.untilUptime - s.uptime, why: refusal.message };
  }
  const ms = earlyEndHoldMs(earlyEnds(s, members, now), now);
  return { ms, why: ms > 0 ? 'new members keep ending soon after their creation' : '' };
}

const NOTHING = { actions: [], ask: [], wakeMs: Infinity, held: '' };
/** Replicas: births for the deficit, endings for the surplus, one at a time under OrderedReady. */
function planReplicas(s: Snapshot, members: readonly Judged[], now: number, random: () => number) {
  const { spec, meta } = s.cluster;
  const live = members.filter(isLive);
  const ordered = spec.podManagementPolicy === 'OrderedReady';
  const busy = ordered && members.some((j) => isComingUp(j, now) || isLeaving(j, now));
  const step = ordered ? 1 : Infinity;
  const result = { actions: [] as Action[], ask: [] as Ref[], wakeMs: Infinity, held: '' };
  // Creations without a definite answer are on their way: they have their place.
  const coming = [...s.memory.unfinished].filter((pod) => !s.pods.has(pod)).length;
  const surplus = live.length + coming - spec.replicas;
  if (surplus > 0) {
    // A stale cache must not shrink a cluster: the wish to is read live.
    if (!s.live.has(`statefulclusters/${meta.name}`))
      result.ask.push(refOf('statefulclusters', meta.name));
    else if (!members.some((j) => ordered && isLeaving(j, now))) {
      const revision = revisionHash(spec.template, s.cluster.status.collisionCount ?? 0);
      // Members whose pod is not known yet keep their place, and are not the ones to go.
      const known = live.filter((j) => j.member.pod || j.member.gone);
      const count = Math.max(0, Math.min(surplus - (live.length - known.length), step));
      const leaving = scaleInOrder(known, revision).slice(0, count);
      const policy = spec.persistentVolumeClaimRetentionPolicy.whenScaled;
      result.ask.push(...leaving.flatMap((j) => unseenClaims(s, j.member)));
      result.actions.push(...leaving.flatMap((j) => planEnd(s, j, 'ScaledIn', policy)));
    } else result.wakeMs = LIMITS.leavingMaxMs;
    return result;
  }
  const hold = creationHold(s, members, now);
  const returns = planReturns(s, members);
  result.actions.push(...returns.actions.filter((a) => a.do !== 'CreateMember'));
  result.wakeMs = returns.wakeMs;
  if (hold.ms > 0) return { ...result, wakeMs: Math.min(hold.ms, result.wakeMs), held: hold.why };
  if (busy) return { ...result, wakeMs: Math.min(LIMITS.leavingMaxMs, result.wakeMs) };
  const back = returns.actions.filter((a) => a.do === 'CreateMember');
  const births = planBirths(s, members, Math.min(-surplus, step), now, random);
  result.actions.push(...[...back, ...births].slice(0, step));
  return result;
}

/** The upkeep of claims: free what was marked Delete once its pod is gone (I3), delete what a crash
 *  left before its pod, keep the owner reference in step with whenDeleted, grow what may grow. */
function planClaims(s: Snapshot, members: readonly Judged[]): readonly Action[] {
  const { spec, meta } = s.cluster;
  const wantsOwner = spec.persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete';
  const actions: Action[] = [];
  for (const { member, standing } of members) {
    const claims = member.claims.filter((c) => !isTerminating(c));
    if (standing === 'condemned' && member.gone) {
      const freed = claims.filter((c) => c.meta.annotations[MARK.retiredPolicy] === 'Delete');
      const because = member.retired?.reason ?? 'Interrupted';
      actions.push(...freed.map((claim): Action => ({ do: 'DeleteClaim', claim, because })));
    }
    if (standing === 'undecided' && isInterrupted(member)) {
      const unbound = claims.filter((c) => !isBound(c));
      actions.push(
        ...unbound.map((claim): Action => ({ do: 'DeleteClaim', claim, because: 'Interrupted' })),
      );
    }
    if (!['live', 'withheld', 'returning'].includes(standing)) continue;
    for (const claim of claims) {
      const others = claim.meta.owners.filter((o) => o.uid !== meta.uid);
      if (isControlledBy(claim.meta, meta.uid) !== wantsOwner) {
        const owners = wantsOwner ? [...others, ownerOf(s.cluster)] : others;
        actions.push({ do: 'OwnClaim', claim, owners, because: 'Owned' });
      }
      const request = claimGrowth(s.cluster, member.identity, claim);
      const refused = s.memory.complaints.get(claim.meta.name);
      const waits = refused?.request === request && s.uptime < refused.untilUptime;
      if (request && !waits)
        actions.push({ do: 'ExpandClaim', claim, request, because: 'Expanded' });
    }
  }
  return actions;
}

const templateOfClaim = (cluster: StatefulCluster, identity: string, claim: Claim) =>
  cluster.spec.volumeClaimTemplates.find(
    (t) => claimName(t.metadata?.name ?? '', cluster.meta.name, identity) === claim.meta.name,
  );
/** The larger request that its template now asks for, or '' when the claim has it. */
export function claimGrowth(cluster: StatefulCluster, identity: string, claim: Claim): string {
  const wanted =
    templateOfClaim(cluster, identity, claim)?.spec?.resources?.requests?.['storage'] ?? '';
  return isBound(claim) && quantity(wanted) > quantity(claim.request) ? wanted : '';
}
/** What its template says that a living claim can no longer follow: a field name, or ''. */
export function claimDrift(cluster: StatefulCluster, identity: string, claim: Claim): string {
  const spec = templateOfClaim(cluster, identity, claim)?.spec;
  if (!spec) return 'template';
  if (quantity(spec.resources?.requests?.['storage'] ?? '') < quantity(claim.request))
    return 'resources';
  const fixed = [
    'storageClassName',
    'accessModes',
    'volumeMode',
    'selector',
    'dataSource',
  ] as const;
  return (
    fixed.find((f) => spec[f] && canonicalJson(spec[f]) !== canonicalJson(claim.spec[f])) ?? ''
  );
}

/** Decides. Idle when the cluster is being deleted (nothing is created after that), paused, or when
 *  its spec cannot work; the members are judged all the same, for the status. */
export function plan(s: Snapshot, now: number, random: () => number): Plan {
  const { meta, spec } = s.cluster;
  const { first, members, ask, brake } = planStandings(s, now);
  const evidence = evidenceOf(s, first);
  const young = members.filter((j) => !j.member.pod && !j.member.gone && !isSettled(j.member, now));
  const settles = young.map(({ member }) =>
    Math.max(...member.claims.map((c) => c.meta.createdMs + LIMITS.settleMs - now)),
  );
  const verdictWakes = members.map((j) => j.verdict.wakeMs ?? Infinity);
  const retries = [...s.memory.complaints.values()].map((c) => c.untilUptime - s.uptime);
  const wakes = [...verdictWakes, ...settles, ...retries, brake.wakeMs].filter((ms) => ms > 0);
  const wakeMs = Math.max(100, Math.min(...wakes, Infinity));
  const stalled = s.denied || specProblem(s.cluster);
  const { why: withheld, outage } = brake;
  const told = { evidence, wakeMs, stalled, held: '', withheld, outage };
  const idle = { members, actions: [], ask: [], ...told };
  if (isTerminating(s.cluster)) return { ...idle, wakeMs: Infinity };
  if (meta.annotations[MARK.paused] === 'true' || stalled !== '') return idle;
  const keeping = planKeeping(s);
  const settled = members.map((j): Judged => {
    if (!keeping.released.has(j.member.identity)) return j;
    return { member: j.member, verdict: lost('Released', 0), standing: 'letGo' };
  });
  const ends = settled.flatMap((j) => {
    if (j.standing === 'letGo') {
      const because = j.verdict.reason ?? 'PodDeleted';
      const { whenLost } = spec.persistentVolumeClaimRetentionPolicy;
      return planEnd(s, j, because, because === 'Released' ? 'Retain' : whenLost);
    }
    // What a crash left half-marked is marked as its sibling; a pod re-made by a stale request
    // goes.
    const { retired } = j.member;
    return j.standing === 'condemned' && retired
      ? planEnd(s, j, retired.reason, retired.policy)
      : [];
  });
  // Adopted pods are counted when the cache shows them: none is made or ended in the same pass.
  const adopts = keeping.ask.length > 0 || keeping.actions.some((a) => a.do === 'AdoptPod');
  const replicas = adopts ? NOTHING : planReplicas(s, settled, now, random);
  return {
    ...idle,
    members: settled,
    actions: [...keeping.actions, ...ends, ...replicas.actions, ...planClaims(s, settled)],
    ask: uniqueRefs([...ask, ...keeping.ask, ...replicas.ask]),
    wakeMs: Math.max(100, Math.min(wakeMs, replicas.wakeMs)),
    held: replicas.held,
  };
}
/** What this process keeps in mind after a pass over `s`; `memory` is what it has learned
 *  meanwhile. Evidence that is gone is forgotten, so that it counts anew when it returns; a last
 *  pod is dropped once the plan has dealt with its member. */
export function remember(s: Snapshot, p: Plan, memory: Memory): Memory {
  const { uptime } = s;
  const awaited = new Set(p.members.filter((j) => !j.member.pod && isLive(j)).map(idOf));
  const lastPods = [...memory.lastPods].filter(
    ([identity]) => awaited.has(identity) || !s.memory.lastPods.has(identity),
  );
  const pods = [...s.pods.values(), ...lastPods.map(([, pod]) => pod)];
  const uids = new Set(pods.map((pod) => pod.meta.uid));
  const restarts = p.members.flatMap((j): [string, number][] => {
    const { pod } = j.member;
    if (!pod) return [];
    const before = memory.restartsBefore.get(pod.meta.uid) ?? calmRestarts(pod);
    return [[pod.meta.uid, j.verdict.health === 'Available' ? pod.restarts : before]];
  });
  const growing = new Map(
    p.members.flatMap(({ member }) =>
      member.claims.map((c) => [c.meta.name, claimGrowth(s.cluster, member.identity, c)]),
    ),
  );
  const lately = [...memory.returns].filter(([, r]) => uptime - r.atUptime <= LIMITS.earlyEndMs);
  const backs = p.actions.flatMap((a): [string, Comeback][] => {
    if (a.do !== 'CreateMember' || a.because !== 'Returned') return [];
    const { identity } = a.birth;
    return [
      [identity, { times: (memory.returns.get(identity)?.times ?? 0) + 1, atUptime: uptime }],
    ];
  });
  const wanted = p.held !== '' || p.actions.some((a) => a.do === 'CreateMember');
  return {
    ...memory,
    firstSeen: new Map(p.evidence.map((key) => [key, memory.firstSeen.get(key) ?? uptime])),
    lastPods: new Map(lastPods),
    deletedUids: new Set([...memory.deletedUids].filter((uid) => uids.has(uid))),
    restartsBefore: new Map(restarts),
    outage: p.outage,
    returns: new Map([...lately, ...backs]),
    refusal: wanted ? memory.refusal : undefined,
    complaints: new Map(
      [...memory.complaints].filter(([claim, c]) => growing.get(claim) === c.request),
    ),
  };
}
const uniqueRefs = (refs: readonly Ref[]): readonly Ref[] => [
  ...new Map(refs.map((ref) => [keyOfRef(ref), ref])).values(),
];

// ═══ 6 STATUS · pure ═════════════════════════════════════════════════════════════════════════════
// What people and tools are told: status and conditions, recomputed whole every time, and the
// Events of a pass. Nothing is merged by hand, so no condition stays True after recovery. Only
// counters and lineage that no object carries any more are taken over from the status before.

const isReady = (j: Judged): boolean => ['Ready', 'Available'].includes(j.verdict.health);

function memberStatus({ member, verdict, standing }: Judged): MemberStatus {
  const { pod, identity } = member;
  return {
    identity,
    pod: pod?.meta.name ?? '',
    node: nodeNameOf(member),
    revision: pod?.meta.labels[MARK.revision] ?? '',
    health:
      standing === 'withheld'
        ? 'Withheld'
        : standing === 'returning'
          ? 'Returning'
          : verdict.health,
    reason: verdict.reason ?? member.retired?.reason ?? '',
    ...(verdict.sinceMs > 0 && { since: timeText(verdict.sinceMs) }),
    claims: member.claims.map((c) => c.meta.name).sort(),
  };
}

/** The last retired identities, newest first, each with its successor. The marks on the claims say
 *  so; of members without claims, and after the claims went, the status before does. */
function retiredStatus(s: Snapshot, p: Plan, now: number): readonly RetiredStatus[] {
  const before = new Map((s.cluster.status.retired ?? []).map((r) => [r.identity, r]));
  const successor = successors(s);
  for (const a of p.actions)
    if (a.do === 'CreateMember' && a.replaces) successor.set(a.replaces, a.birth.identity);
  const ending = new Map<string, Reason>();
  for (const a of p.actions) {
    if (a.do === 'RetireClaim') ending.set(a.claim.meta.labels[MARK.identity] ?? '', a.because);
    if (a.do === 'DeletePod' && a.because !== 'Returned') {
      ending.set(identityOf(a.pod, s.cluster.meta.name), a.because);
    }
  }
  const found = new Map(before);
  for (const { member, verdict, standing } of p.members) {
    const { identity, retired } = member;
    const claims = member.claims.map((c) => c.meta.name).sort();
    const unmarked = standing === 'letGo' && claims.length === 0 ? verdict.reason : undefined;
    const thisPass = ending.get(identity) ?? unmarked;
    const reason = retired?.reason ?? before.get(identity)?.reason ?? thisPass;
    if (!reason) continue;
    const at = before.get(identity)?.at ?? timeText(retired?.atMs ?? now);
    found.set(identity, { identity, reason, at, claims, replacedBy: '' });
  }
  return [...found.values()]
    .map((r) => {
      const replacedBy = successor.get(r.identity) ?? before.get(r.identity)?.replacedBy ?? '';
      return { ...r, replacedBy };
    })
    .sort((a, b) => (a.at === b.at ? byAge(b.identity, a.identity) : a.at < b.at ? 1 : -1))
    .slice(0, LIMITS.statusRetiredMax);
}

/** Replacements so far: identities younger than the newest that the status before knew. */
function countReplacements(s: Snapshot, p: Plan): number {
  const { replacements = 0, newestIdentity = '' } = s.cluster.status;
  const fresh = new Set(successors(s).values());
  for (const a of p.actions) if (a.do === 'CreateMember' && a.replaces) fresh.add(a.birth.identity);
  return replacements + [...fresh].filter((id) => byAge(id, newestIdentity) > 0).length;
}

function driftOf(s: Snapshot, members: readonly Judged[]): string {
  const drifted = members.filter(isLive).flatMap(({ member }) =>
    member.claims.flatMap((claim) => {
      const field = claimDrift(s.cluster, member.identity, claim);
      return field ? [`${claim.meta.name} (${field})`] : [];
    }),
  );
  const refused = [...s.memory.complaints].map(([claim, c]) => `${claim}: ${c.message}`);
  if (refused.length > 0) return `the API server refuses to expand ${fewNames(refused)}`;
  if (drifted.length === 0) return '';
  const now = 'spec.volumeClaimTemplates now holds for new identities only';
  return `${now}; these claims differ: ${fewNames(drifted)}`;
}

/** What holds the cluster up, or what a user of a settled one should know. */
function readyMessage(s: Snapshot, p: Plan, available: number): string {
  const live = p.members.filter(isLive);
  const waiting = live.filter((j) => j.verdict.health !== 'Available');
  const names = waiting.map((j) => `${j.member.identity} ${memberStatus(j).health}`);
  const going = live.filter(
    (j) => j.verdict.health === 'Available' && j.member.claims.some(isTerminating),
  );
  return [
    `${available} of ${s.cluster.spec.replicas} members are available`,
    ...(names.length > 0 ? [`waiting for ${fewNames(names)}`] : []),
    ...(p.held !== '' ? [`creations wait: ${p.held}`] : []),
    ...going.map((j) => `${j.member.identity} runs on a claim that is being deleted`),
    ...(s.nodes ? [] : ['nodes cannot be read, so NodeGone and NodeUnreachable are not judged']),
    ...(s.volumesReadable
      ? []
      : ['volumes cannot be read, so VolumeLost is judged by claims alone']),
  ].join('; ');
}

const stateOf = (stalled: boolean, done: boolean, paused: boolean): string => {
  if (done) return 'AllAvailable';
  if (stalled) return 'Stalled';
  return paused ? 'Paused' : 'MembersUnavailable';
};
function conditionsOf(s: Snapshot, p: Plan, available: number, now: number): readonly Condition[] {
  const { spec, meta } = s.cluster;
  const live = p.members.filter(isLive).length;
  const paused = meta.annotations[MARK.paused] === 'true';
  const trouble = p.stalled || (s.memory.refusal?.message ?? '');
  const done = live === spec.replicas && available === spec.replicas && trouble === '';
  const drift = driftOf(s, p.members);
  const message = readyMessage(s, p, available);
  const state = stateOf(trouble !== '', done, paused);
  const progress = done ? 'Complete' : state;
  const idle = trouble !== '' || paused;
  const enough = available >= spec.replicas - maxUnavailableOf(spec);
  // Type, truth, the reason when True, the reason when False, message.
  const rows: readonly (readonly [string, boolean, string, string, string])[] = [
    ['Available', enough, 'MinimumAvailable', 'MinimumUnavailable', message],
    ['Progressing', !idle, progress, progress, message],
    ['Ready', done, state, state, message],
    ['Reconciling', !done && !idle, progress, progress, message],
    ['Stalled', trouble !== '', p.stalled ? 'InvalidSpec' : 'Refused', 'NotStalled', trouble],
    ['ReplacementWithheld', p.withheld !== '', 'BudgetSpent', 'NoneWithheld', p.withheld],
    ['ClaimTemplatesDrifted', drift !== '', 'Drifted', 'InStep', drift],
  ];
  return rows.map(([type, truth, yes, no, message]) => {
    const [status, reason] = truth ? (['True', yes] as const) : (['False', no] as const);
    const next = { type, status, reason, message, observedGeneration: meta.generation } as const;
    return setCondition(s.cluster.status.conditions ?? [], next, now);
  });
}

/** The whole status, from the snapshot and the plan. Times in it come from objects, never from the
 *  clock of this pass, so an unchanged cluster gives an unchanged status. */
export function statusOf(s: Snapshot, p: Plan, now: number): Status {
  const { spec, status: before, meta } = s.cluster;
  const live = p.members.filter(isLive);
  const collisionCount = before.collisionCount ?? 0;
  const updateRevision = revisionHash(spec.template, collisionCount);
  const revisions = live
    .map((j) => j.member.pod?.meta.labels[MARK.revision] ?? '')
    .filter((r) => r !== '');
  const count = (revision: string): number => revisions.filter((r) => r === revision).length;
  const older = unique(revisions).filter((r) => r !== updateRevision);
  older.sort((a, b) => count(b) - count(a) || (a < b ? -1 : 1));
  const currentRevision = older[0] ?? updateRevision;
  const available = live.filter((j) => j.verdict.health === 'Available').length;
  const born = p.actions.flatMap((a) => (a.do === 'CreateMember' ? [a.birth.identity] : []));
  const identities = [...identitiesOf(s), ...born];
  const shown = p.members.filter((j) => isLive(j) || j.member.pod);
  const sick = (j: Judged): number => (j.verdict.health === 'Available' ? 1 : 0);
  shown.sort((a, b) => sick(a) - sick(b) || byAge(a.member.identity, b.member.identity));
  const retired = [...s.claims.values()].filter((c) => c.meta.labels[MARK.retired] === 'true');
  return {
    observedGeneration: meta.generation,
    replicas: live.length,
    readyReplicas: live.filter(isReady).length,
    availableReplicas: available,
    currentReplicas: count(currentRevision),
    updatedReplicas: count(updateRevision),
    currentRevision,
    updateRevision,
    collisionCount,
    selector: selectorText(spec.selector),
    replacements: countReplacements(s, p),
    retiredClaims: retired.filter((c) => !isTerminating(c)).length,
    newestIdentity:
      identities
        .filter((id) => birthSecond(id) >= 0)
        .sort(byAge)
        .at(-1) ?? '',
    members: shown.slice(0, LIMITS.statusMembersMax).map(memberStatus),
    retired: retiredStatus(s, p, now),
    conditions: conditionsOf(s, p, available, now),
  };
}

/** One Event of a pass. */
export interface Story {
  readonly reason: string;
  readonly type: 'Normal' | 'Warning';
  readonly message: string;
}
const VERBS: Readonly<Record<Exclude<Action['do'], 'CreateMember'>, string>> = {
  AdoptPod: 'adopted',
  RelabelPod: 'put labels back on',
  ReleasePod: 'released',
  RetireClaim: 'retired claim',
  DeletePod: 'deleted pod',
  DeleteClaim: 'deleted claim',
  OwnClaim: 'changed the owner of claim',
  ExpandClaim: 'expanded claim',
};
const nameOf = (a: Action): string =>
  a.do === 'CreateMember' ? a.birth.identity : 'pod' in a ? a.pod.meta.name : a.claim.meta.name;

/** One Event for each Reason of a pass, so that 300 creations are one line in `kubectl
 *  describe`. */
export function storiesOf(actions: readonly Action[]): readonly Story[] {
  return unique(actions.map((a) => a.because)).map((reason) => {
    const same = actions.filter((a) => a.because === reason);
    const pairs = same.flatMap((a) =>
      a.do === 'CreateMember' && a.replaces
        ? [`replaced ${a.replaces} by ${a.birth.identity}`]
        : [],
    );
    const made = same.filter((a) => a.do === 'CreateMember' && !a.replaces).map(nameOf);
    const parts = [
      ...(pairs.length > 0 ? [fewNames(pairs)] : []),
      ...(made.length > 0
        ? [`created ${made.length === 1 ? '' : `${made.length} members: `}${fewNames(made)}`]
        : []),
      ...Object.entries(VERBS).flatMap(([verb, words]) => {
        const names = same.filter((a) => a.do === verb).map(nameOf);
        return names.length > 0 ? [`${words} ${fewNames(names)}`] : [];
      }),
    ];
    return { reason, type: isReplaced(reason) ? 'Warning' : 'Normal', message: parts.join('; ') };
  });
}

/** Conditions that turned bad, as Events; that they turned good again is in the status. */
export function turnsOf(
  before: readonly Condition[],
  after: readonly Condition[],
): readonly Story[] {
  const bad = ['Stalled', 'ReplacementWithheld', 'ClaimTemplatesDrifted'];
  return after
    .filter((c) => bad.includes(c.type) && c.status === 'True' && c.reason !== 'Refused')
    .filter((c) => before.find((b) => b.type === c.type)?.status !== 'True')
    .map((c) => ({ reason: c.type, type: 'Warning', message: c.message }));
}

// ═══ THE LINE ════════════════════════════════════════════════════════════════════════════════════
// Everything above decides and touches nothing.
// Everything below obeys and decides nothing.

// ═══ 7 WORLD · effects ═══════════════════════════════════════════════════════════════════════════
// The one door to time, chance and the network. Production implements it in CLIENT and MAIN, the
// tests implement it with virtual time and faults; the operator between them is the same code.

/** One request to the API server; `path` is absolute and carries the query string. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string; // Default application/json; a PATCH names its type.
  readonly timeoutMs?: number; // Deadline, default LIMITS.requestMs.
}
/** What came back: parsed JSON, lower-case header names. */
export interface ApiResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}
/** One line of a watch. */
export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: unknown;
}
/** What the operator needs of the outside. */
export interface World {
  /** Wall clock, milliseconds since 1970. */
  now(): number;
  /** Monotonic clock in milliseconds; never steps. */
  uptime(): number;
  /** Resolves after `ms`, or early when aborted; never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** At least 0, below 1. */
  random(): number;
  /** Rejects only when there is no answer: network, deadline, a body that is not JSON. */
  send(request: ApiRequest): Promise<ApiResponse>;
  /** Calls `on` for each event in order. Resolves when the stream ends (status 200) or with the
   *  error response (status ≥ 400); rejects when the connection breaks, which is noticed within 30
   *  s. */
  watch(path: string, on: (event: WatchEvent) => void, signal: AbortSignal): Promise<ApiResponse>;
  log(level: Level, message: string, fields?: Readonly<Record<string, unknown>>): void;
}
export type Level = 'debug' | 'info' | 'warn' | 'error';

// ═══ 8 CLIENT · effects ══════════════════════════════════════════════════════════════════════════
// Kubeconfig or in-cluster credentials → `send` and `watch` on HTTP/2 sessions of Node's own. The
// library reads credentials only: its request path opens a TLS connection each time, and its
// informer stops at the first reset. A proxy-url and API servers without HTTP/2 are not handled.

/** The API server's `metav1.Status`, or no answer at all (`code` 0). */
export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly retryAfterMs: number;
  constructor(code: number, reason: string, message: string, retryAfterMs = 0) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}
/** A definite no, as against 401, 408, 409, 429, 5xx and lost answers, which say nothing final. */
export const isRefusal = (error: unknown): error is ApiError =>
  error instanceof ApiError && [400, 403, 404, 405, 413, 415, 422].includes(error.code);
const isTaken = (error: unknown): boolean =>
  error instanceof ApiError && error.reason === 'AlreadyExists';

/** What an error says; of a cancelled stream, what cancelled it. */
export function wordsOf(error: unknown): string {
  const words = error instanceof Error ? error.message : String(error);
  return /caused by: (.*)\)$/.exec(words)?.[1] ?? words;
}
function apiErrorOf(answer: ApiResponse): ApiError {
  const { reason = '', message = '' } = (answer.body ?? {}) as {
    reason?: string;
    message?: string;
  };
  const seconds = Number(answer.headers['retry-after'] ?? 0);
  const words = message || `the API server answered ${answer.status}`;
  return new ApiError(answer.status, reason, words, (Number.isNaN(seconds) ? 1 : seconds) * 1000);
}
/** send(), but every answer that is not a success is thrown as ApiError. */
export async function call(world: World, request: ApiRequest): Promise<Raw> {
  let answer: ApiResponse;
  try {
    answer = await world.send(request);
  } catch (error) {
    throw new ApiError(0, 'NoAnswer', wordsOf(error));
  }
  if (answer.status >= 400) throw apiErrorOf(answer);
  const warning = answer.headers['warning'];
  if (warning) world.log('warn', 'the API server warns', { warning, path: request.path });
  return answer.body as Raw;
}

interface Credentials {
  readonly tls: http2.SecureClientSessionOptions;
  readonly headers: Readonly<Record<string, string>>;
}
/** Asks the kubeconfig for credentials; called again on 401, since tokens rotate. */
async function credentialsOf(config: KubeConfig): Promise<Credentials> {
  const options: { headers?: Record<string, string> } & Record<string, unknown> = {};
  await config.applyToHTTPSOptions(options);
  const {
    headers = {},
    auth,
    ca,
    cert,
    key,
    pfx,
    passphrase,
    servername,
    rejectUnauthorized,
  } = options;
  const basic = auth
    ? { authorization: `Basic ${Buffer.from(String(auth)).toString('base64')}` }
    : {};
  const given = { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized };
  const tls = Object.fromEntries(
    Object.entries(given).filter(([, v]) => v !== undefined && v !== null),
  );
  return { tls, headers: { ...headers, ...basic } };
}

/** One HTTP/2 session at a time; GOAWAY, an error or an unanswered ping makes way for a new one. */
function newLink(server: URL, load: () => Promise<KubeConfig>) {
  let session: http2.ClientHttp2Session | undefined;
  let credentials: Promise<Credentials> | undefined;
  const drop = (old: http2.ClientHttp2Session): void => {
    if (session === old) session = undefined;
  };
  function connect(tls: http2.SecureClientSessionOptions): http2.ClientHttp2Session {
    const next = http2.connect(server.origin, { ...tls, settings: { initialWindowSize: 4 << 20 } });
    next.setMaxListeners(0);
    next.on('error', () => drop(next)); // Each stream reports it to its own request.
    next.on('goaway', () => drop(next));
    next.on('connect', () => next.setLocalWindowSize(16 << 20));
    let answered = true;
    const timer = setInterval(() => {
      if (!answered) next.destroy(new Error(`no answer to a ping for ${LIMITS.pingMs} ms`));
      answered = false;
      if (!next.destroyed && !next.connecting) next.ping(() => (answered = true));
    }, LIMITS.pingMs);
    timer.unref();
    next.on('close', () => (clearInterval(timer), drop(next)));
    return next;
  }
  return {
    /** After a 401: tokens rotate. The session that got it ends with its last stream. */
    renew(old: http2.Http2Session | undefined): void {
      if (!old || old !== session) return;
      [credentials, session] = [undefined, undefined];
      old.close();
    },
    async open(
      headers: http2.OutgoingHttpHeaders,
      body?: string,
    ): Promise<http2.ClientHttp2Stream> {
      credentials ??= load().then(credentialsOf);
      const given = await credentials.catch(
        (error: unknown) => ((credentials = undefined), Promise.reject(error)),
      );
      if (!session || session.closed || session.destroyed) session = connect(given.tls);
      const all = { ...headers, ...lowerCased(given.headers) };
      // Said outright, since Node would end a DELETE before its body.
      const stream = session.request(all, { endStream: body === undefined });
      if (body !== undefined) stream.end(body);
      return stream;
    },
  };
}
const lowerCased = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([k, v]) => [k.toLowerCase(), v]));

/** Hands chunks of the body to `on`; resolves with status and headers when the stream has ended.
 *  Every other end, also one without an answer or a throw of `on`, rejects. */
function exchange(stream: http2.ClientHttp2Stream, on: (text: string, status: number) => void) {
  return new Promise<Omit<ApiResponse, 'body'>>((resolve, reject) => {
    let status = 0;
    let headers = {};
    stream.setEncoding('utf8');
    stream.on('response', (given) => {
      status = Number(given[':status']);
      headers = Object.fromEntries(Object.entries(given).map(([k, v]) => [k, String(v)]));
    });
    stream.on('data', (text: string) => {
      try {
        on(text, status);
      } catch (error) {
        stream.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
    stream.on('error', reject);
    stream.on('close', () => {
      if (status > 0 && stream.rstCode === 0) resolve({ status, headers });
      else reject(new Error(`the stream was closed (code ${stream.rstCode})`));
    });
  });
}

/** `send` and `watch` of World over the kubeconfig's current context. Credentials come from
 *  `reload`, again after a 401, since the library keeps what it once read. */
export function connect(
  config: KubeConfig,
  reload: () => Promise<KubeConfig>,
): Pick<World, 'send' | 'watch'> {
  const server = new URL(config.getCurrentCluster()?.server ?? 'http://localhost:8080');
  const prefix = server.pathname.replace(/\/$/, '');
  const link = newLink(server, reload);
  const head = (method: string, path: string) => ({
    ':method': method,
    ':path': prefix + path,
    accept: 'application/json',
    'user-agent': `statefulcluster/${VERSION}`,
  });
  async function exchangeOnce(request: ApiRequest): Promise<ApiResponse> {
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const type = { 'content-type': request.contentType ?? 'application/json' };
    const headers = { ...head(request.method, request.path), ...(body && type) };
    const stream = await link.open(headers, body);
    const { session } = stream;
    const ms = request.timeoutMs ?? LIMITS.requestMs;
    const timer = setTimeout(() => stream.destroy(new Error(`no answer within ${ms} ms`)), ms);
    try {
      let text = '';
      const answer = await exchange(stream, (chunk) => (text += chunk));
      if (answer.status === 401) link.renew(session);
      return { ...answer, body: jsonOf(text, answer.status) };
    } finally {
      clearTimeout(timer);
    }
  }
  return {
    async send(request) {
      const answer = await exchangeOnce(request);
      return answer.status === 401 ? exchangeOnce(request) : answer; // With the token read again.
    },
    async watch(path, on, signal) {
      const stream = await link.open(head('GET', path));
      const { session } = stream;
      const abort = (): void => stream.close(http2.constants.NGHTTP2_CANCEL);
      signal.addEventListener('abort', abort);
      if (signal.aborted) abort(); // While it was being opened.
      let rest = '';
      try {
        const answer = await exchange(stream, (chunk, status) => {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          if (status >= 400) rest = [...lines, rest].join('\n');
          else for (const line of lines) if (line !== '') on(JSON.parse(line) as WatchEvent);
        });
        if (answer.status === 401) link.renew(session);
        return { ...answer, body: answer.status < 400 ? undefined : jsonOf(rest, answer.status) };
      } finally {
        signal.removeEventListener('abort', abort);
      }
    },
  };
}
/** The body as JSON. An error that is not, a proxy's HTML page say, is told in its own words. */
function jsonOf(text: string, status: number): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    const words = text.replaceAll(/\s+/g, ' ').trim().slice(0, 120);
    if (status < 400) throw new Error(`the answer is not JSON: ${words}`);
    return { message: `answer ${status}, not from an API server: ${words}` };
  }
}

// ═══ 9 CACHE · effects ═══════════════════════════════════════════════════════════════════════════
// Lists and watches one kind in one scope and keeps what decisions need of each object, frozen. A
// partial list is never taken for the whole; an older version never replaces a newer one.

/** JSON as it came from the API server. */
export interface Raw {
  readonly [field: string]: any; // The only untyped door; the projections below close it.
}
const ms = (text: unknown): number | undefined =>
  typeof text === 'string' && text !== '' ? Date.parse(text) : undefined;

/** Projects metadata. */
export function metaOf(raw: Raw): Meta {
  const m = (raw['metadata'] ?? {}) as Raw;
  return {
    namespace: m['namespace'] ?? '',
    name: m['name'] ?? '',
    uid: m['uid'] ?? '',
    resourceVersion: m['resourceVersion'] ?? '',
    generation: m['generation'] ?? 0,
    labels: m['labels'] ?? {},
    annotations: ownAnnotations(m['annotations']),
    owners: m['ownerReferences'] ?? [],
    createdMs: ms(m['creationTimestamp']) ?? 0,
    deletedMs: ms(m['deletionTimestamp']),
  };
}
/** Other annotations can be large, and nothing rests on them. */
const ownAnnotations = (annotations: unknown): Dict =>
  Object.fromEntries(
    Object.entries(dictOf(annotations)).filter(
      ([key]) => key.startsWith('enge.me/') || key === MARK.deletionCost,
    ),
  );

const DEFAULTS = {
  replicas: 1,
  suspend: false,
  volumeClaimTemplates: [],
  serviceName: '',
  podManagementPolicy: 'Parallel',
  minReadySeconds: 0,
  replacementPolicy: 'Always',
} as const;
const LIVENESS: Liveness = {
  ...{ nodeGoneSeconds: 30, nodeUnreachableSeconds: 300, volumeLostSeconds: 60 },
  ...{ unreadySeconds: 0, startupSeconds: 0, maxRestarts: 0 },
};
const RETENTION = {
  ...{ whenDeleted: 'Retain', whenScaled: 'Retain', whenReplaced: 'Retain', whenLost: 'Retain' },
} as const;

/** The CRD defaults most fields; an object or a CRD older than this program may lack some. */
export function clusterOf(raw: Raw): StatefulCluster {
  const spec = (raw['spec'] ?? {}) as Raw;
  const rolling = { maxUnavailable: 1, ...spec['updateStrategy']?.rollingUpdate };
  return {
    meta: metaOf(raw),
    status: raw['status'] ?? {},
    spec: {
      ...DEFAULTS,
      selector: {},
      template: {},
      ...spec,
      updateStrategy: { ...spec['updateStrategy'], rollingUpdate: rolling },
      liveness: { ...LIVENESS, ...spec['liveness'] },
      persistentVolumeClaimRetentionPolicy: {
        ...RETENTION,
        ...spec['persistentVolumeClaimRetentionPolicy'],
      },
    },
  };
}

/** Projects a pod. */
export function podOf(raw: Raw): Pod {
  const { spec = {}, status = {} } = raw as { spec: Raw; status: Raw };
  const conditions = (status['conditions'] ?? []) as Raw[];
  const condition = (type: string): Raw | undefined => conditions.find((c) => c['type'] === type);
  const at = (type: string): number | undefined => ms(condition(type)?.['lastTransitionTime']);
  const containers = (status['containerStatuses'] ?? []) as Raw[];
  const volumes = (spec['volumes'] ?? []) as Raw[];
  const target = condition('DisruptionTarget');
  return {
    meta: metaOf(raw),
    node: spec['nodeName'] ?? '',
    phase: status['phase'] ?? 'Pending',
    graceSeconds: spec['terminationGracePeriodSeconds'] ?? 30,
    claims: volumes.flatMap((v) => v['persistentVolumeClaim']?.claimName ?? []),
    scheduledMs: condition('PodScheduled')?.['status'] === 'True' ? at('PodScheduled') : undefined,
    startedMs: ms(status['startTime']),
    ready: condition('Ready')?.['status'] === 'True',
    readySinceMs: at('Ready'),
    disruption: target?.['status'] === 'True' ? target['reason'] : '',
    disruptedMs: at('DisruptionTarget'),
    restarts: containers.reduce((sum, c) => sum + (c['restartCount'] ?? 0), 0),
    crashLooping: containers.some((c) => c['state']?.waiting?.reason === 'CrashLoopBackOff'),
  };
}

/** Projects a PersistentVolumeClaim. */
export function claimOf(raw: Raw): Claim {
  const { spec = {}, status = {} } = raw as { spec: Raw; status: Raw };
  return {
    meta: metaOf(raw),
    phase: status['phase'] ?? 'Pending',
    volume: spec['volumeName'] ?? '',
    request: spec['resources']?.requests?.storage ?? '',
    selectedNode: raw['metadata']?.annotations?.['volume.kubernetes.io/selected-node'] ?? '',
    spec,
  };
}

/** Projects a Node. */
export function nodeOf(raw: Raw): Node {
  const conditions = (raw['status']?.conditions ?? []) as Raw[];
  const ready = conditions.find((c) => c['type'] === 'Ready');
  const taints = (raw['spec']?.taints ?? []) as Raw[];
  return {
    meta: { ...metaOf(raw), annotations: {} },
    ready: ready?.['status'] === 'True',
    readySinceMs: ms(ready?.['lastTransitionTime']),
    outOfService: taints.some((t) => t['key'] === 'node.kubernetes.io/out-of-service'),
  };
}

/** Projects a PersistentVolume. */
export function volumeOf(raw: Raw): Volume {
  const terms = raw['spec']?.nodeAffinity?.required?.nodeSelectorTerms as Raw[] | undefined;
  return { meta: metaOf(raw), terms: terms?.map((t) => t['matchExpressions'] ?? []) };
}

/** One kind in one scope, kept in memory. */
export interface Feed<T extends Thing> {
  readonly world: World;
  readonly path: string;
  project(raw: Raw): T;
  on(before: T | undefined, after: T | undefined): void; // Hears of each change that matters.
  readonly signal: AbortSignal;
  readonly optional: boolean; // The operator can work without it.
  readonly ready: PromiseWithResolvers<void>; // Listed once, or may not be and need not.
  readonly items: Map<string, T>;
  version: number; // All changes up to this resourceVersion are in.
  listedAt: number; // Uptime at which the newest complete list began; -1 before the first.
  denied: string; // The API server's words when this kind may not be read.
  refusals: number; // 403s in a row; for seconds after its start an API server knows no rights yet.
  next: 'fresh' | 'again' | 'resume'; // List from nothing, list at `version`, or only watch.
  streams: boolean; // Streaming lists; older API servers page instead.
  cut: AbortController; // Ends the stream that is open.
}
interface Thing {
  readonly meta: Meta;
}
type OnChange<T> = (before: T | undefined, after: T | undefined) => void;

const keyOf = ({ namespace, name }: Meta): string => (namespace ? `${namespace}/${name}` : name);
const versionOf = (raw: Raw): number => Number(raw['metadata']?.resourceVersion ?? 0);
const unversioned = (o: Thing | undefined): string =>
  o ? JSON.stringify({ ...o, meta: { ...o.meta, resourceVersion: '' } }) : '';

/** Starts to follow one kind, until aborted; `done` settles when it has ended. */
export function follow<T extends Thing>(
  given: Pick<Feed<T>, 'world' | 'path' | 'project' | 'on' | 'signal' | 'optional'>,
): Feed<T> & { readonly done: Promise<void> } {
  const state = {
    version: 0,
    listedAt: -1,
    denied: '',
    next: 'fresh',
    streams: true,
    refusals: 0,
  } as const;
  const cut = new AbortController();
  const feed: Feed<T> = {
    ...given,
    ...state,
    items: new Map(),
    ready: Promise.withResolvers(),
    cut,
  };
  return Object.assign(feed, { done: keepFollowing(feed) });
}
/** Throws the view away and lists anew from a quorum. */
function relist(feed: Feed<Thing>): void {
  feed.next = 'fresh';
  feed.cut.abort();
}

async function keepFollowing<T extends Thing>(feed: Feed<T>): Promise<void> {
  const { world, signal } = feed;
  for (let failures = 0; !signal.aborted;) {
    const before = feed.version;
    try {
      if (!feed.streams && feed.next !== 'resume') await listPages(feed);
      await stream(feed);
      failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      failures = feed.version > before ? 1 : failures + 1;
      learn(feed, error);
      const askedMs = error instanceof ApiError ? error.retryAfterMs : 0;
      const capMs = feed.denied !== '' ? LIMITS.backoffMaxMs : LIMITS.retryMaxMs;
      await world.sleep(
        Math.max(askedMs, backoffMs(failures, LIMITS.retryMinMs, capMs, world.random)),
        signal,
      );
    }
  }
}
/** Doubling with jitter. */
const backoffMs = (times: number, minMs: number, capMs: number, random: () => number): number =>
  Math.min(minMs * 2 ** Math.min(times - 1, 16), capMs) * (0.5 + random() / 2);

/** What a failure says of the next try: expired or unknown versions are listed afresh. Others
 *  are listed again at the last version, which also reveals an etcd that was restored to an
 *  older one. */
function learn(feed: Feed<Thing>, error: unknown): void {
  const code = error instanceof ApiError ? error.code : 0;
  const message = wordsOf(error);
  feed.refusals = code === 403 ? feed.refusals + 1 : 0;
  if (feed.refusals >= LIMITS.refusalsMax) {
    feed.denied = message;
    if (feed.optional) feed.ready.resolve();
  }
  // The kind itself is gone (its CRD was removed): so are its objects.
  if (code === 404) replaceAll(feed, new Map(), 0, feed.world.uptime());
  if ((code === 400 || code === 422) && feed.next !== 'resume') feed.streams = false;
  const unknown = [404, 410, 504].includes(code) || message.includes('Too large resource version');
  feed.next = unknown || feed.listedAt < 0 ? 'fresh' : 'again';
  feed.world.log('warn', 'watch restarts', { path: feed.path, code, error: message });
}

function put<T extends Thing>(feed: Feed<T>, key: string, object: T | undefined): void {
  const before = feed.items.get(key);
  if (object) feed.items.set(key, Object.freeze(object));
  else feed.items.delete(key);
  if (unversioned(before) !== unversioned(object)) feed.on(before, object);
}
/** A complete list becomes the truth at once: what is not in it is gone. */
function replaceAll<T extends Thing>(
  feed: Feed<T>,
  fresh: ReadonlyMap<string, T>,
  version: number,
  at: number,
): void {
  Object.assign(feed, { version, listedAt: at, denied: '', refusals: 0, next: 'resume' });
  for (const key of [...feed.items.keys()]) if (!fresh.has(key)) put(feed, key, undefined);
  for (const [key, object] of fresh) put(feed, key, object);
  feed.ready.resolve();
}
function applyEvent<T extends Thing>(feed: Feed<T>, event: WatchEvent): void {
  const version = versionOf(event.object as Raw);
  // A bookmark below what is known: etcd was restored to an older state.
  if (event.type === 'BOOKMARK' && version < feed.version) return relist(feed);
  if (version <= feed.version) return; // Replayed or reordered: what is known is newer.
  feed.version = version;
  if (event.type === 'BOOKMARK') return;
  const object = feed.project(event.object as Raw);
  const key = keyOf(object.meta);
  // One name, another UID: the end of the old object was not seen; a deletion and an addition.
  if (feed.items.get(key)?.meta.uid !== object.meta.uid) put(feed, key, undefined);
  put(feed, key, event.type === 'DELETED' ? undefined : object);
}

async function listPages<T extends Thing>(feed: Feed<T>): Promise<void> {
  const at = feed.world.uptime();
  const fresh = new Map<string, T>();
  for (let more = ''; ;) {
    const path = withQuery(feed.path, { limit: LIMITS.pageSize, continue: more });
    const page = await call(feed.world, { method: 'GET', path });
    for (const raw of page['items'] ?? []) {
      const object = feed.project(raw);
      fresh.set(keyOf(object.meta), object);
    }
    more = page['metadata']?.continue ?? '';
    if (more === '') return replaceAll(feed, fresh, versionOf(page), at);
  }
}

/** One watch, begun with a streaming list unless it only resumes. Ends with the stream. */
async function stream<T extends Thing>(feed: Feed<T>): Promise<void> {
  const { world, next } = feed;
  const at = world.uptime();
  const before = feed.version;
  let fresh = next === 'resume' ? undefined : new Map<string, T>();
  let failure: ApiError | undefined;
  const cut = (feed.cut = new AbortController());
  const onEvent = (event: WatchEvent): void => {
    const raw = event.object as Raw;
    if (event.type === 'ERROR') {
      failure = new ApiError(
        raw['code'] ?? 500,
        raw['reason'] ?? '',
        raw['message'] ?? 'watch failed',
      );
      cut.abort(); // Some servers leave the stream open after an ERROR.
    } else if (!fresh) applyEvent(feed, event);
    else if (event.type !== 'BOOKMARK') {
      const object = feed.project(raw);
      fresh.set(keyOf(object.meta), object);
    } else if (raw['metadata']?.annotations?.['k8s.io/initial-events-end'] === 'true') {
      replaceAll(feed, fresh, versionOf(raw), at);
      fresh = undefined;
    }
  };
  void world.sleep(LIMITS.syncMaxMs, cut.signal).then(() => {
    if (!fresh || cut.signal.aborted) return;
    feed.streams = false; // No end of the initial events: a server that does not know them.
    cut.abort();
  });
  try {
    const path = withQuery(feed.path, watchQuery(feed));
    const answer = await world.watch(path, onEvent, AbortSignal.any([feed.signal, cut.signal]));
    if (answer.status >= 400) throw apiErrorOf(answer);
    const brief = world.uptime() - at < LIMITS.briefMs && feed.version === before;
    if (brief) throw new ApiError(0, 'Brief', 'the stream ended at once, without news');
  } catch (error) {
    if (!cut.signal.aborted) throw error;
  } finally {
    cut.abort();
  }
  if (failure) throw failure;
}
function watchQuery({ next, version, world }: Feed<Thing>): Record<string, string | number> {
  return {
    watch: 'true',
    allowWatchBookmarks: 'true',
    timeoutSeconds: Math.floor(300 + world.random() * 300),
    resourceVersion: next === 'fresh' ? '' : version,
    ...(next !== 'resume' && { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' }),
  };
}

function withQuery(path: string, query: Readonly<Record<string, string | number>>): string {
  const [bare = '', has = ''] = path.split('?');
  const params = new URLSearchParams(has);
  for (const [k, v] of Object.entries(query)) if (v !== '') params.set(k, String(v));
  return `${bare}?${params}`;
}

// ═══ 10 QUEUE · effects ══════════════════════════════════════════════════════════════════════════
// Keys in the order they came, each at most once; `workers` at a time, one key never twice at once.
// A key whose work throws comes again with backoff, and no other key waits for it.

/** `add` and `addAfter` take keys at any time; they wait until `start`. `stop` takes up no further
 *  key and resolves when the running ones have ended. */
export function newQueue(world: World, workers: number, work: (key: string) => Promise<void>) {
  const waiting = new Set<string>();
  const running = new Map<string, Promise<void>>();
  const due = new Map<string, { readonly at: number; readonly timer: AbortController }>();
  const failures = new Map<string, number>();
  let open = false;
  function add(key: string): void {
    waiting.add(key);
    pump();
  }
  function addAfter(key: string, delayMs: number): void {
    const at = world.uptime() + delayMs;
    const earlier = due.get(key);
    if (delayMs === Infinity || (earlier && earlier.at <= at)) return;
    earlier?.timer.abort();
    const timer = new AbortController();
    due.set(key, { at, timer });
    void world.sleep(delayMs, timer.signal).then(() => {
      if (timer.signal.aborted) return; // An earlier time took its place.
      due.delete(key);
      add(key);
    });
  }
  async function run(key: string): Promise<void> {
    try {
      await work(key);
      failures.delete(key);
    } catch (error) {
      const times = (failures.get(key) ?? 0) + 1;
      failures.set(key, times);
      const wait = backoffMs(times, LIMITS.againMinMs, LIMITS.retryMaxMs, world.random);
      const asked = error instanceof ApiError ? error.retryAfterMs : 0;
      const message = wordsOf(error);
      world.log('warn', 'reconcile failed, comes again', { cluster: key, error: message, times });
      addAfter(key, Math.max(asked, wait));
    }
  }
  function pump(): void {
    for (const key of waiting) {
      if (!open || running.size >= workers) return;
      if (running.has(key)) continue;
      waiting.delete(key);
      // In a turn of its own, so that a change of many objects is whole when it is looked at.
      const turn = Promise.resolve().then(() => run(key));
      running.set(
        key,
        turn.then(() => (running.delete(key), pump())),
      );
    }
  }
  const start = (): void => ((open = true), pump());
  const stop = async (): Promise<void> => {
    open = false;
    await Promise.all(running.values());
  };
  return { add, addAfter, start, stop };
}

// ═══ 11 EXECUTOR · effects ═══════════════════════════════════════════════════════════════════════
// Does what the plan says, in its order: mark, release and delete, free, create. Every destructive
// write carries the UID it was decided upon, so a newer object of the same name is never hit.

/** One pass over one cluster: where to write, and what was written. */
export interface Pass {
  readonly world: World;
  readonly cluster: StatefulCluster;
  readonly written: (kind: string, meta: Meta, gone: boolean) => void;
  isCurrent(): boolean; // The cluster is as it was planned upon, and nobody said stop.
  readonly done: Action[];
  readonly unfinished: Set<Creation>; // The answer was lost: the same POSTs are repeated.
  readonly complaints: Map<string, Complaint>;
  readonly deletedUids: Set<string>;
}

const PODS = 'pods';
const CLAIMS = 'persistentvolumeclaims';
type Kind = typeof PODS | typeof CLAIMS;
const inNamespace = (namespace: string): string => namespace && `/namespaces/${namespace}`;
const pathOf = (kind: Kind, namespace: string, name = ''): string =>
  `/api/v1${inNamespace(namespace)}/${kind}${name && `/${name}`}`;
const clusterPath = (namespace: string, name = ''): string =>
  `/apis/enge.me/v1alpha1${inNamespace(namespace)}/statefulclusters${name && `/${name}`}`;
const MERGE = { method: 'PATCH', contentType: 'application/merge-patch+json' } as const;

/** A merge patch that only lands on the very object and version that was decided upon. */
async function patch(pass: Pass, kind: Kind, { meta }: Thing, change: Raw, also?: Raw) {
  const { namespace, name, uid, resourceVersion } = meta;
  const path = `${pathOf(kind, namespace, name)}?fieldManager=statefulcluster`;
  const body = { metadata: { uid, resourceVersion, ...change }, ...also };
  try {
    pass.written(kind, metaOf(await call(pass.world, { ...MERGE, path, body })), false);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 404) throw error;
    pass.written(kind, meta, true); // It is gone: there is nothing left to mark.
  }
}

/** A delete that only hits the object that was decided upon. Gone already is as good. */
async function remove(pass: Pass, kind: Kind, meta: Meta, options: Raw) {
  const path = pathOf(kind, meta.namespace, meta.name);
  const body = { apiVersion: 'v1', kind: 'DeleteOptions', ...options };
  await call(pass.world, { method: 'DELETE', path, body }).catch((error: unknown) => {
    if (!(error instanceof ApiError) || error.code !== 404) throw error;
  });
  pass.written(kind, meta, true);
}

/** One action, but for CreateMember, which goes in batches. */
async function perform(pass: Pass, a: Exclude<Action, { do: 'CreateMember' }>): Promise<void> {
  const { cluster, world } = pass;
  const others = ({ meta }: Thing) => meta.owners.filter((o) => o.uid !== cluster.meta.uid);
  switch (a.do) {
    case 'AdoptPod':
      return patch(pass, PODS, a.pod, { ownerReferences: [...others(a.pod), ownerOf(cluster)] });
    case 'RelabelPod':
      return patch(pass, PODS, a.pod, { labels: ourLabels(cluster.meta.name, a.identity) });
    case 'ReleasePod':
      return patch(pass, PODS, a.pod, { ownerReferences: others(a.pod) });
    case 'RetireClaim': {
      const at = timeText(world.now());
      const marks = {
        [MARK.retired]: a.because,
        [MARK.retiredAt]: at,
        [MARK.retiredPolicy]: a.policy,
      };
      // Retained data outlives the cluster, so its owner reference goes with the mark.
      const free = a.policy === 'Retain' && { ownerReferences: others(a.claim) };
      return patch(pass, CLAIMS, a.claim, {
        labels: { [MARK.retired]: 'true' },
        annotations: marks,
        ...free,
      });
    }
    case 'DeletePod': {
      const { uid } = a.pod.meta;
      if (a.because !== 'Returned') pass.deletedUids.add(uid);
      // A grace period of 0 is a force-delete, which frees the name while containers may still run.
      const gracePeriodSeconds = Math.max(1, a.pod.graceSeconds);
      return remove(pass, PODS, a.pod.meta, { gracePeriodSeconds, preconditions: { uid } });
    }
    case 'DeleteClaim': {
      // I3: the version too, so that a claim bound in the meantime is not deleted as unbound.
      const { uid, resourceVersion } = a.claim.meta;
      return remove(pass, CLAIMS, a.claim.meta, { preconditions: { uid, resourceVersion } });
    }
    case 'OwnClaim':
      return patch(pass, CLAIMS, a.claim, { ownerReferences: a.owners });
    case 'ExpandClaim':
      return expand(pass, a.claim, a.request);
    default:
      return a satisfies never;
  }
}

/** A refusal to expand is shown and tried again later; it holds nothing else up. */
async function expand(pass: Pass, claim: Claim, storage: string): Promise<void> {
  const { name } = claim.meta;
  try {
    await patch(pass, CLAIMS, claim, {}, { spec: { resources: { requests: { storage } } } });
    pass.complaints.delete(name);
  } catch (error) {
    if (!isRefusal(error) || error.code === 404) throw error;
    const untilUptime = pass.world.uptime() + LIMITS.backoffMaxMs;
    pass.complaints.set(name, { message: error.message, request: storage, untilUptime });
  }
}

/** What carries our labels of this identity, and no other owner, was made by an earlier POST; its
 *  pod may have been released since. */
const isOurs = (pass: Pass, meta: Meta, body: Body): boolean =>
  Object.entries(ourLabels(pass.cluster.meta.name, identityIn(body))).every(
    ([key, value]) => meta.labels[key] === value,
  ) &&
  (isControlledBy(meta, pass.cluster.meta.uid) || !hasController(meta));
const identityIn = (body: Body): string => (body.metadata['labels'] as Dict)[MARK.identity] ?? '';

/** POST that repeats safely: AlreadyExists is success when the object there is ours. Throws
 *  AlreadyExists for a foreign one, which is neither adopted nor touched (I8). */
async function create(pass: Pass, kind: Kind, body: Body): Promise<Meta> {
  const { namespace } = pass.cluster.meta;
  const path = `${pathOf(kind, namespace)}?fieldManager=statefulcluster`;
  let meta: Meta;
  try {
    meta = metaOf(await call(pass.world, { method: 'POST', path, body }));
  } catch (error) {
    if (!isTaken(error)) throw error;
    const there = pathOf(kind, namespace, body.metadata.name);
    meta = metaOf(await call(pass.world, { method: 'GET', path: there }));
    if (!isOurs(pass, meta, body)) throw error;
  }
  pass.written(kind, meta, false);
  return meta;
}

/** Claims first, then the pod. Refused: the claims made for it are rolled back, so that nothing
 *  piles up. No answer: the birth stays unfinished, and the same names are posted again. */
async function createMember(pass: Pass, creation: Creation): Promise<void> {
  const { birth } = creation;
  pass.unfinished.add(creation);
  const tries = await Promise.allSettled(birth.claims.map((c) => create(pass, CLAIMS, c)));
  try {
    throwFirst(tries);
    await create(pass, PODS, birth.pod);
  } catch (error) {
    if (!isRefusal(error) && !isTaken(error)) throw error;
    // A POST whose answer was lost may have landed: quota and webhooks refuse its repetition before
    // AlreadyExists would tell. I3: the claims of a pod that is there are not rolled back.
    const created = await isCreated(pass, birth).catch(() => {
      throw error; // Not known: nothing is rolled back, and the refusal is what is told.
    });
    if (!created) {
      for (const t of tries) if (t.status === 'fulfilled') await rollBack(pass, t.value);
      pass.unfinished.delete(creation);
      throw error;
    }
  }
  pass.done.push(creation);
  pass.unfinished.delete(creation);
}
const rollBack = (pass: Pass, meta: Meta): Promise<void> =>
  remove(pass, CLAIMS, meta, { preconditions: { uid: meta.uid } });
async function isCreated(pass: Pass, birth: Birth): Promise<boolean> {
  const path = pathOf(PODS, pass.cluster.meta.namespace, birth.pod.metadata.name);
  try {
    const meta = metaOf(await call(pass.world, { method: 'GET', path }));
    const ours = isOurs(pass, meta, birth.pod);
    if (ours) pass.written(PODS, meta, false);
    return ours;
  } catch (error) {
    if (error instanceof ApiError && error.code === 404) return false;
    throw error;
  }
}
function throwFirst(tries: readonly PromiseSettledResult<unknown>[]): void {
  for (const t of tries) if (t.status === 'rejected') throw t.reason;
}

/** Slow start as in ReplicaSet: 1, 2, 4, … at a time, and no further batch after a failure. After a
 *  refusal the first pod is tried with a dry-run, so that its claims are not made in vain. */
async function createMembers(
  pass: Pass,
  all: readonly Creation[],
  dryRunFirst: boolean,
): Promise<void> {
  const [first] = all;
  if (dryRunFirst && first && !pass.unfinished.has(first)) {
    const path = `${pathOf(PODS, pass.cluster.meta.namespace)}?dryRun=All`;
    await call(pass.world, { method: 'POST', path, body: first.birth.pod });
    const claims = `${pathOf(CLAIMS, pass.cluster.meta.namespace)}?dryRun=All`;
    for (const body of first.birth.claims)
      await call(pass.world, { method: 'POST', path: claims, body });
  }
  for (let start = 0, size = 1; start < all.length; start += size, size *= 2) {
    if (!pass.isCurrent()) return; // The rest of the plan is void.
    size = Math.min(size, LIMITS.batchMax);
    const batch = all.slice(start, start + size);
    throwFirst(await Promise.allSettled(batch.map((creation) => createMember(pass, creation))));
  }
}

const STAGES: readonly (readonly Action['do'][])[] = [
  ['RetireClaim', 'AdoptPod'], // Marks before ends: a crash leaves no member ended and unmarked.
  ['ReleasePod', 'DeletePod'],
  ['DeleteClaim'],
  ['CreateMember'],
  ['OwnClaim', 'ExpandClaim', 'RelabelPod'], // Upkeep holds nothing else up.
];
/** Runs the actions stage by stage. What fails holds back only what comes after it for its own
 *  member and that member's successor. Returns the first failure. */
async function execute(pass: Pass, actions: readonly Action[], refusal: Refusal | undefined) {
  const held = refusal !== undefined && pass.world.uptime() < refusal.untilUptime;
  const again = held ? [] : pass.unfinished;
  const failed = new Set<string>();
  let failure: unknown;
  const { name } = pass.cluster.meta;
  const memberOfAction = (a: Exclude<Action, Creation>): string =>
    'pod' in a ? identityOf(a.pod, name) : (a.claim.meta.labels[MARK.identity] ?? name);
  const goesOn = (a: Action): boolean =>
    !failed.has((a.do === 'CreateMember' ? a.replaces : memberOfAction(a)) ?? '');
  const attempt = async (work: Promise<void>, member: string): Promise<void> =>
    work.catch((error: unknown) => {
      failed.add(member);
      failure ??= error;
    });
  for (const stage of STAGES) {
    const now = actions.filter((a) => stage.includes(a.do) && goesOn(a));
    const births = now.flatMap((a) => (a.do === 'CreateMember' ? [a] : []));
    if (stage.includes('CreateMember')) {
      await attempt(createMembers(pass, [...again, ...births], refusal !== undefined), '');
    }
    const works = now.map((a) => {
      if (a.do === 'CreateMember') return undefined;
      return attempt(
        perform(pass, a).then(() => void pass.done.push(a)),
        memberOfAction(a),
      );
    });
    await Promise.all(works);
  }
  return failure;
}

// ═══ 12 CONTROLLER · effects ═════════════════════════════════════════════════════════════════════
// reconcile(key): snapshot → plan → live reads → plan → execute → status → requeue. It moves what
// the rooms above it decided; it has no ifs on domain fields.

/** What `run` was told. */
export interface Options {
  readonly namespaces: readonly string[]; // Empty: all.
  readonly selector: string; // Of the StatefulClusters; '' for all.
  readonly workers: number;
}
/** A write that the cache must show before its cluster is planned again. */
interface Expectation {
  readonly feed: Feed<Thing>;
  readonly key: string;
  readonly uid: string;
  readonly version: number; // 0: a deletion, to be seen by UID.
  at: number; // Uptime of the write, or of the newest list that was asked for its sake.
}
/** What is kept for one cluster between passes. */
interface Desk {
  readonly uid: string;
  readonly unfinished: Set<Creation>;
  readonly told: Map<string, { name: string; count: number; at: number }>;
  memory: Memory;
  expected: Expectation[];
  statusAt: number;
}
interface Scope {
  readonly clusters: Feed<StatefulCluster>;
  readonly pods: Feed<Pod>;
  readonly claims: Feed<Claim>;
}
interface Children {
  readonly pods: Map<string, Pod>;
  readonly claims: Map<string, Claim>;
}
/** All state of a running operator. */
interface Operator {
  readonly world: World;
  readonly signal: AbortSignal;
  readonly desks: Map<string, Desk>;
  readonly children: Map<string, Children>; // By cluster key, kept as the feeds change.
  readonly volumes: Map<string, Volume>; // Read once, by name.
  readonly scopes: Map<string, Scope>; // By namespace, '' for all.
  nodes: Feed<Node> | undefined;
  volumesReadable: boolean;
  queue: ReturnType<typeof newQueue>;
}

/** The whole operator on one World, until aborted: what `run` starts and the simulation runs. */
export async function runOperator(
  world: World,
  options: Options,
  signal: AbortSignal,
): Promise<void> {
  const maps = { desks: new Map(), children: new Map(), volumes: new Map(), scopes: new Map() };
  const queue = newQueue(world, options.workers, (key) => reconcile(o, key));
  const o: Operator = { world, signal, ...maps, nodes: undefined, volumesReadable: true, queue };
  const feeds = startFeeds(o, options);
  const done = Promise.all(feeds.map((feed) => feed.done));
  await Promise.race([Promise.all(feeds.map((feed) => feed.ready.promise)), done]);
  if (signal.aborted) return void (await done); // Nothing is planned from a view that is not whole.
  const keys = [...o.scopes.values()].flatMap((scope) => [...scope.clusters.items.keys()]);
  world.log('info', 'caches are synced', { clusters: keys.length });
  for (const key of keys) queue.add(key);
  queue.start();
  await aborted(signal);
  // Whatever hangs is abandoned: the next start finds it done or undone.
  await Promise.race([Promise.all([queue.stop(), done]), world.sleep(LIMITS.stopMaxMs)]);
}
const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve());
  });

function startFeeds(o: Operator, options: Options) {
  const feeds: { readonly ready: PromiseWithResolvers<void>; readonly done: Promise<void> }[] = [];
  const watch = <T extends Thing>(path: string, project: (raw: Raw) => T, on: OnChange<T>) => {
    const optional = path === '/api/v1/nodes';
    const feed = follow({ world: o.world, path, project, on, signal: o.signal, optional });
    feeds.push(feed);
    return feed;
  };
  // Other workloads cost nothing.
  const label = `?labelSelector=${encodeURIComponent(MARK.cluster)}`;
  const chosen = options.selector && `?labelSelector=${encodeURIComponent(options.selector)}`;
  for (const ns of options.namespaces.length > 0 ? options.namespaces : ['']) {
    o.scopes.set(ns, {
      pods: watch(pathOf('pods', ns) + label, podOf, (a, b) => onPod(o, a, b)),
      claims: watch(pathOf('persistentvolumeclaims', ns) + label, claimOf, (a, b) =>
        onChild(o, 'claims', a, b),
      ),
      clusters: watch(clusterPath(ns) + chosen, clusterOf, (a, b) => {
        const meta = (b ?? a)?.meta;
        if (meta) o.queue.add(keyOf(meta));
      }),
    });
  }
  o.nodes = watch('/api/v1/nodes', nodeOf, (a, b) => onNode(o, a, b));
  return feeds;
}

const clusterKeyOf = (meta: Meta): string => `${meta.namespace}/${meta.labels[MARK.cluster] ?? ''}`;
function childrenOf(o: Operator, key: string): Children {
  const found = o.children.get(key) ?? { pods: new Map(), claims: new Map() };
  o.children.set(key, found);
  return found;
}
/** Keeps the index of children by cluster, and wakes the cluster once the index is right. */
function onChild(
  o: Operator,
  kind: keyof Children,
  before: Thing | undefined,
  after: Thing | undefined,
): void {
  const [from, to] = [before && clusterKeyOf(before.meta), after && clusterKeyOf(after.meta)];
  if (before && from !== undefined && from !== to) {
    const { pods, claims } = childrenOf(o, from);
    (kind === 'pods' ? pods : claims).delete(before.meta.name);
    if (pods.size + claims.size === 0) o.children.delete(from);
  }
  if (after && to !== undefined) {
    (childrenOf(o, to)[kind] as Map<string, Thing>).set(after.meta.name, after);
  }
  for (const key of unique([from, to])) if (key !== undefined) o.queue.add(key);
}
/** A pod that went is remembered until the plan has dealt with its member. */
function onPod(o: Operator, before: Pod | undefined, after: Pod | undefined): void {
  const key = before && clusterKeyOf(before.meta);
  const desk = o.desks.get(key ?? '');
  if (before && !after && desk && isControlledBy(before.meta, desk.uid)) {
    const identity = identityOf(before, before.meta.labels[MARK.cluster] ?? '');
    const lastPods = new Map(desk.memory.lastPods).set(identity, before);
    desk.memory = { ...desk.memory, lastPods };
  }
  onChild(o, 'pods', before, after); // Wakes the cluster, so it comes last.
}
function onNode(o: Operator, before: Node | undefined, after: Node | undefined): void {
  const name = (after ?? before)?.meta.name ?? '';
  for (const [key, { pods, claims }] of o.children) {
    const touches = [...pods.values()].some((p) => p.node === name || p.node === '');
    if (touches || [...claims.values()].some((c) => c.selectedNode === name)) o.queue.add(key);
  }
}

function deskOf(o: Operator, key: string, uid: string): Desk {
  const known = o.desks.get(key);
  if (known?.uid === uid) return known;
  const seen = { firstSeen: new Map(), lastPods: new Map(), restartsBefore: new Map() };
  const maps = { ...seen, returns: new Map(), unfinished: new Set<string>() };
  const memory = {
    ...maps,
    deletedUids: new Set<string>(),
    complaints: new Map(),
    refusal: undefined,
    outage: undefined,
  };
  const desk = {
    uid,
    unfinished: new Set<Creation>(),
    told: new Map(),
    memory,
    expected: [],
    statusAt: -Infinity,
  };
  o.desks.set(key, desk);
  return desk;
}

function isSeen({ feed, key, uid, version, at }: Expectation): boolean {
  if (feed.listedAt > at || (version > 0 && feed.version >= version)) return true;
  const meta = feed.items.get(key)?.meta;
  return version === 0 && (meta?.uid !== uid || meta.deletedMs !== undefined);
}
/** Read-your-writes: no plan before the cache shows what was written. A cache that lags long is
 *  listed anew; it is never just believed, or a stale view would create or delete twice (I4). */
function hasCaughtUp(o: Operator, key: string, desk: Desk): boolean {
  desk.expected = desk.expected.filter((e) => !isSeen(e));
  if (desk.expected.length === 0) return true;
  const uptime = o.world.uptime();
  const late = desk.expected.filter((e) => uptime - e.at >= LIMITS.catchUpMaxMs);
  for (const feed of unique(late.map((e) => e.feed))) {
    o.world.log('warn', 'the cache lags own writes: listing anew', {
      cluster: key,
      path: feed.path,
    });
    relist(feed);
  }
  for (const e of late) e.at = uptime;
  o.queue.addAfter(key, LIMITS.recheckMs);
  return false;
}

const podNameOf = (creation: Creation): string => creation.birth.pod.metadata.name;
function snapshotOf(o: Operator, cluster: StatefulCluster, desk: Desk, scope: Scope): Snapshot {
  const { pods, claims } = childrenOf(o, keyOf(cluster.meta));
  const { memory } = desk;
  // A pod that the cache shows, or showed, was born: its POST is not repeated.
  const isSeen = ({ birth }: Creation): boolean => {
    const pod = pods.get(birth.pod.metadata.name) ?? memory.lastPods.get(birth.identity);
    return pod !== undefined && isControlledBy(pod.meta, desk.uid);
  };
  const unfinished = [...desk.unfinished].filter((creation) => !isSeen(creation));
  return {
    cluster,
    pods: new Map(pods),
    claims: new Map(claims),
    nodes: o.nodes?.denied === '' ? o.nodes.items : undefined,
    volumes: o.volumes,
    volumesReadable: o.volumesReadable,
    live: new Set(),
    memory: { ...memory, unfinished: new Set(unfinished.map(podNameOf)) },
    denied: scope.pods.denied || scope.claims.denied,
    uptime: o.world.uptime(),
  };
}

/** Plans, reads live what the plan asks for, plans again; what is left after four rounds comes next
 *  time. */
async function decide(o: Operator, first: Snapshot): Promise<{ s: Snapshot; p: Plan }> {
  const { world } = o;
  let s = first;
  let p = plan(s, world.now(), world.random);
  for (let round = 0; p.ask.length > 0 && round < 4; round++) {
    const raws = await Promise.all(p.ask.map((ref) => read(o, s.cluster.meta.namespace, ref)));
    s = p.ask.reduce((laid, ref, i) => overlay(o, laid, ref, raws[i]), s);
    p = plan(s, world.now(), world.random);
  }
  return { s, p };
}
/** A live GET; undefined says that there is no such object, which is an answer too. */
async function read(o: Operator, namespace: string, { kind, name }: Ref): Promise<Raw | undefined> {
  const path =
    kind === 'nodes' || kind === 'persistentvolumes'
      ? `/api/v1/${kind}/${name}`
      : kind === 'statefulclusters'
        ? clusterPath(namespace, name)
        : pathOf(kind, namespace, name);
  try {
    return await call(o.world, { method: 'GET', path });
  } catch (error) {
    if (error instanceof ApiError && error.code === 404) return undefined;
    if (kind !== 'persistentvolumes' || !(error instanceof ApiError) || error.code !== 403)
      throw error;
    o.volumesReadable = false;
    return undefined;
  }
}
/** Lays what was read live over the snapshot. */
function overlay(o: Operator, s: Snapshot, ref: Ref, raw: Raw | undefined): Snapshot {
  const live = new Set(s.live).add(keyOfRef(ref));
  const over = <T>(map: ReadonlyMap<string, T>, object: T | undefined): ReadonlyMap<string, T> => {
    const others = [...map].filter(([name]) => name !== ref.name);
    return new Map(object ? [...others, [ref.name, object]] : others);
  };
  switch (ref.kind) {
    case 'pods':
      return { ...s, live, pods: over(s.pods, raw && podOf(raw)) };
    case 'persistentvolumeclaims':
      return { ...s, live, claims: over(s.claims, raw && claimOf(raw)) };
    case 'nodes':
      return { ...s, live, nodes: s.nodes && over(s.nodes, raw && nodeOf(raw)) };
    case 'persistentvolumes':
      if (raw) o.volumes.set(ref.name, volumeOf(raw));
      return { ...s, live, volumesReadable: o.volumesReadable };
    case 'statefulclusters': {
      const cluster = raw && clusterOf(raw);
      if (cluster?.meta.uid === s.cluster.meta.uid) return { ...s, live, cluster };
      throw new ApiError(410, 'Gone', 'the cluster is gone: the cache will say so');
    }
    default:
      return ref.kind satisfies never;
  }
}

function passOf(
  o: Operator,
  key: string,
  cluster: StatefulCluster,
  desk: Desk,
  scope: Scope,
): Pass {
  const feeds: Readonly<Record<string, Feed<Thing>>> = {
    pods: scope.pods,
    persistentvolumeclaims: scope.claims,
    statefulclusters: scope.clusters,
  };
  return {
    world: o.world,
    cluster,
    done: [],
    unfinished: desk.unfinished,
    complaints: new Map(desk.memory.complaints),
    deletedUids: new Set(desk.memory.deletedUids),
    written(kind, meta, gone) {
      const feed = feeds[kind];
      const version = gone ? 0 : Number(meta.resourceVersion);
      const at = o.world.uptime();
      if (feed) desk.expected.push({ feed, key: keyOf(meta), uid: meta.uid, version, at });
    },
    isCurrent() {
      const meta = scope.clusters.items.get(key)?.meta;
      const { uid, generation } = cluster.meta;
      const same = meta?.uid === uid && meta.generation === generation;
      return same && meta.deletedMs === undefined && !o.signal.aborted;
    },
  };
}

async function reconcile(o: Operator, key: string): Promise<void> {
  const scope = o.scopes.get(key.slice(0, key.indexOf('/'))) ?? o.scopes.get('');
  const cluster = scope?.clusters.items.get(key);
  if (!scope || !cluster) return void o.desks.delete(key);
  const desk = deskOf(o, key, cluster.meta.uid);
  if (!hasCaughtUp(o, key, desk)) return;
  const { s, p } = await decide(o, snapshotOf(o, cluster, desk, scope));
  const pass = passOf(o, key, s.cluster, desk, scope);
  if (isTerminating(s.cluster)) desk.unfinished.clear(); // Nothing is created after that.
  for (const creation of desk.unfinished) {
    if (s.memory.unfinished.has(podNameOf(creation))) continue;
    desk.unfinished.delete(creation); // I1: posted again, it might outlive its own end.
    pass.done.push(creation);
  }
  try {
    desk.memory = { ...desk.memory, firstSeen: remember(s, p, desk.memory).firstSeen };
    const failure = await execute(pass, p.actions, desk.memory.refusal);
    desk.memory = failure ? memoryAfter(pass, desk) : remember(s, p, memoryAfter(pass, desk));
    if (isRefusal(failure)) await refuse(o, pass, desk, failure);
    // The status tells what was done, not what was planned.
    await report(o, pass, desk, { ...s, memory: desk.memory }, { ...p, actions: pass.done });
    if (failure && !isRefusal(failure)) throw failure;
  } finally {
    for (const story of storiesOf(pass.done)) await recordEvent(pass, desk, story);
  }
  o.queue.addAfter(key, desk.expected.length > 0 ? LIMITS.recheckMs : p.wakeMs);
}
const memoryAfter = (pass: Pass, { memory }: Desk): Memory => ({
  ...memory,
  deletedUids: pass.deletedUids,
  complaints: pass.complaints,
  refusal: pass.done.some((a) => a.do === 'CreateMember') ? undefined : memory.refusal,
});

/** Remembers a refusal for the status, in the API server's own words, and comes back later. */
async function refuse(o: Operator, pass: Pass, desk: Desk, error: ApiError): Promise<void> {
  const { world } = o;
  const times = (desk.memory.refusal?.times ?? 0) + 1;
  const wait = doubled(times);
  const refusal = { message: error.message, times, untilUptime: world.uptime() + wait };
  desk.memory = { ...desk.memory, refusal };
  o.queue.addAfter(keyOf(pass.cluster.meta), wait);
  await recordEvent(pass, desk, { reason: 'Refused', type: 'Warning', message: error.message });
}

/** Writes the status when it differs, at most once a second, on the version it was computed
 *  from. */
async function report(o: Operator, pass: Pass, desk: Desk, s: Snapshot, p: Plan): Promise<void> {
  const { namespace, name, uid, resourceVersion } = s.cluster.meta;
  const status = statusOf(s, p, o.world.now());
  const before: Readonly<Record<string, unknown>> = s.cluster.status;
  // Fields that a newer version or a hand wrote stay, and are no difference.
  const differs = Object.entries(status).some(
    ([k, v]) => canonicalJson(v) !== canonicalJson(before[k]),
  );
  if (isTerminating(s.cluster) || !differs) return;
  // Of an identity whose claims go with it, this status is the only record.
  const urgent = p.members.some((j) => j.standing === 'letGo');
  const dueMs = desk.statusAt + LIMITS.statusEveryMs - o.world.uptime();
  if (dueMs > 0 && !urgent) return o.queue.addAfter(keyOf(s.cluster.meta), dueMs);
  const raw = await call(o.world, {
    method: 'PATCH',
    path: `${clusterPath(namespace, name)}/status?fieldManager=statefulcluster`,
    contentType: 'application/merge-patch+json',
    body: { metadata: { uid, resourceVersion }, status },
  });
  desk.statusAt = o.world.uptime();
  pass.written('statefulclusters', metaOf(raw), false);
  const turned = turnsOf(s.cluster.status.conditions ?? [], status.conditions);
  for (const story of turned) await recordEvent(pass, desk, story);
}

/** An Event, or one more count of the same Event within ten minutes. It is news, not work: a
 *  failure is logged and nothing waits for it. */
async function recordEvent(
  pass: Pass,
  desk: Desk,
  { reason, type, message }: Story,
): Promise<void> {
  const { world, cluster } = pass;
  const { namespace, name, uid } = cluster.meta;
  const now = world.now();
  // A refusal names another pod each time it is tried again, and is still the same news.
  const key = reason === 'Refused' ? reason : `${reason} ${message}`;
  world.log(type === 'Warning' ? 'warn' : 'info', reason, {
    cluster: `${namespace}/${name}`,
    message,
  });
  const same = desk.told.get(key);
  const known = same !== undefined && now - same.at < LIMITS.earlyEndMs ? same : undefined;
  const id =
    known?.name ?? `${name}.${digits(now, 9)}${digits(Math.floor(world.random() * BASE ** 4), 4)}`;
  const count = (known?.count ?? 0) + 1;
  desk.told.delete(key);
  desk.told.set(key, { name: id, count, at: now });
  for (const [oldest] of desk.told) if (desk.told.size > LIMITS.toldMax) desk.told.delete(oldest);
  const path = `/api/v1/namespaces/${namespace}/events`;
  const again = { count, lastTimestamp: timeText(now), message: message.slice(0, 1000) };
  const { apiVersion, kind } = ownerOf(cluster);
  const body = {
    metadata: { name: id },
    involvedObject: { apiVersion, kind, name, namespace, uid },
    source: { component: 'statefulcluster' },
    ...{ reason, type, firstTimestamp: timeText(now), ...again },
  };
  const patchType = { contentType: 'application/merge-patch+json' };
  const request: ApiRequest = known
    ? { method: 'PATCH', path: `${path}/${id}`, body: again, ...patchType }
    : { method: 'POST', path, body };
  await call(world, request).catch((error: unknown) => {
    world.log('debug', 'Event not written', { error: String(error) });
  });
}

// ═══ 15 CLI · effects ════════════════════════════════════════════════════════════════════════════
// Words in, words out: the only room that knows the terminal. Wrong use is one line and exit code
// 2, what cannot be done is one line and exit code 1; a stack trace is a bug.

const VERSION = process.env['STATEFULCLUSTER_VERSION'] ?? '0.0.0-dev'; // Set by build.mjs.
const HELP = `statefulcluster ${VERSION}: stateful pods whose identity is never re-used

  statefulcluster run [flags]   replace lost members, until stopped
  statefulcluster version       print the version
  statefulcluster help          print this

flags of run:
  --kubeconfig FILE    default: $KUBECONFIG, ~/.kube/config, or the pod's own service account
  --context NAME       of the kubeconfig; default: its current one
  -n, --namespace NS   may be given several times; default: $WATCH_NAMESPACE (a comma list; empty
                       means all), else the namespace of the context or of the pod
  -A, --all-namespaces
  --selector LABELS    only StatefulClusters with these labels
  --workers N          clusters worked on at a time (default 4)
  --log json|pretty    default: pretty on a terminal, else json
`;
/** Wrong use of the command line: one line, exit code 2. */
class UsageError extends Error {}

const RUN_FLAGS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  namespace: { type: 'string', short: 'n', multiple: true },
  'all-namespaces': { type: 'boolean', short: 'A' },
  selector: { type: 'string' },
  workers: { type: 'string' },
  log: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

function flagsOf(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: RUN_FLAGS, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError(wordsOf(error).split('. ')[0]);
  }
}

async function loadConfig(
  file: string | undefined,
  context: string | undefined,
): Promise<KubeConfig> {
  const { KubeConfig } = await import('@kubernetes/client-node'); // `version` need not wait.
  const config = new KubeConfig();
  const where = file ?? process.env['KUBECONFIG'] ?? 'the default kubeconfig';
  try {
    if (file !== undefined) config.loadFromFile(file);
    else config.loadFromDefault();
  } catch (error) {
    throw new Error(`cannot read ${where}: ${wordsOf(error)}`);
  }
  if (context !== undefined) {
    if (!config.getContextObject(context)) throw new Error(`${where} has no context "${context}"`);
    config.setCurrentContext(context);
  }
  // The library refuses plain http (`kubectl proxy`) unless TLS is waived, which it has none of.
  const plain = (c: Cluster): boolean => c.server.startsWith('http:');
  config.clusters = config.clusters.map((c) => (plain(c) ? { ...c, skipTLSVerify: true } : c));
  const cluster = config.getCurrentCluster();
  if (!cluster?.server) throw new Error(`${where} names no cluster: set --kubeconfig or --context`);
  if (!URL.canParse(cluster.server)) throw new Error(`${where}: "${cluster.server}" is not a URL`);
  if (cluster.proxyUrl) throw new Error(`${where} asks for proxy-url, which is not supported`);
  return config;
}

function logger(format: string): World['log'] {
  const paint = { debug: kleur.gray, info: kleur.green, warn: kleur.yellow, error: kleur.red };
  return (level, message, fields = {}) => {
    const time = new Date().toISOString();
    if (format === 'json') {
      if (level !== 'debug') console.log(JSON.stringify({ time, level, msg: message, ...fields }));
    } else if (level !== 'debug') {
      const { cluster = '', message: text = '', ...rest } = fields;
      const others = Object.entries(rest).map(([k, v]) => kleur.gray(`${k}=${String(v)}`));
      const head = `${kleur.gray(time.slice(11, 19))} ${paint[level](message.padEnd(16))}`;
      console.log(
        [head, kleur.bold(String(cluster)), String(text), ...others].filter(Boolean).join(' '),
      );
    }
  };
}

/** The World of production. */
export function realWorld(
  config: KubeConfig,
  log: World['log'],
  reload: () => Promise<KubeConfig> = async () => config,
): World {
  return {
    now: () => Date.now(),
    uptime: () => performance.now(),
    random: () => Math.random(),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) return resolve();
        const end = (): void => (
          clearTimeout(timer),
          signal?.removeEventListener('abort', end),
          resolve()
        );
        const timer = setTimeout(end, Math.min(ms, 2 ** 31 - 1));
        signal?.addEventListener('abort', end);
      }),
    ...connect(config, reload),
    log,
  };
}

/** One look at each kind that is needed, so that a wrong server, a missing CRD or a missing right
 *  is one clear line at the start instead of a retry for ever. */
async function preflight(world: World, { namespaces, selector }: Options): Promise<void> {
  for (const ns of namespaces.length > 0 ? namespaces : ['']) {
    const clusters = withQuery(clusterPath(ns), { labelSelector: selector });
    for (const path of [clusters, pathOf(PODS, ns), pathOf(CLAIMS, ns)]) {
      const request = { method: 'GET', path: withQuery(path, { limit: 1 }) } as const;
      await call(world, request).catch((error: unknown) => {
        const code = error instanceof ApiError ? error.code : -1;
        const words = wordsOf(error);
        if (code === 0) throw new Error(`the API server cannot be reached: ${words}`);
        if (code !== 404 || !path.startsWith('/apis/')) throw error;
        const cure = 'kubectl apply -f deploy.yaml';
        throw new Error(`the API server does not know StatefulCluster: ${cure}`);
      });
    }
  }
}

async function run(args: readonly string[]): Promise<void> {
  const flags = flagsOf(args);
  if (flags.help) return void process.stdout.write(HELP);
  const format = flags.log ?? (process.stdout.isTTY ? 'pretty' : 'json');
  if (format !== 'json' && format !== 'pretty')
    throw new UsageError('--log must be json or pretty');
  const workers = Number(flags.workers ?? 4);
  if (!Number.isInteger(workers) || workers < 1)
    throw new UsageError('--workers must be a number above 0');
  if (flags['all-namespaces'] && flags.namespace)
    throw new UsageError('-A and -n exclude each other');
  const load = (): Promise<KubeConfig> => loadConfig(flags.kubeconfig, flags.context);
  const config = await load();
  const watched = process.env['WATCH_NAMESPACE'];
  const own = config.getContextObject(config.getCurrentContext())?.namespace ?? 'default';
  const namespaces = flags['all-namespaces']
    ? []
    : (flags.namespace ??
      (watched === undefined ? [own] : watched.split(',').filter((ns) => ns !== '')));
  const log = logger(format);
  const world = realWorld(config, log, load);
  const options = { namespaces, workers, selector: flags.selector ?? '' };
  await preflight(world, options);
  const server = config.getCurrentCluster()?.server;
  log('info', 'starts', { version: VERSION, server, namespaces: namespaces.join(',') || 'all' });
  const stop = new AbortController();
  process.stdout.on('error', () => stop.abort()); // Whoever read the log is gone.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());
  await runOperator(world, options, stop.signal);
  log('info', 'stopped');
}

// ═══ 16 MAIN · effects ═══════════════════════════════════════════════════════════════════════════
// The entry: one command, one exit code. Importing this file has no effect; running it (`node
// operator.ts run`) needs no build.

/** Runs one command; returns the exit code. Never throws. */
export async function main(argv: readonly string[]): Promise<number> {
  const [command = 'help', ...rest] = argv;
  try {
    if (command === 'run') await run(rest);
    else if (command === 'version' || command === '--version') console.log(VERSION);
    else if (['help', '--help', '-h'].includes(command)) process.stdout.write(HELP);
    else throw new UsageError(`there is no command "${command}": see statefulcluster help`);
    return 0;
  } catch (error) {
    const message = wordsOf(error);
    console.error(`statefulcluster: ${message.split('\n')[0]}`);
    return error instanceof UsageError ? 2 : 1;
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
