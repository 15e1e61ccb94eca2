// StatefulCluster: stateful pods on Kubernetes whose identity is never given to other state.
// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type net from 'node:net';
import { homedir, hostname } from 'node:os';
import { delimiter, dirname, join, resolve, sep } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { aborted, isDeepStrictEqual, parseArgs, promisify } from 'node:util';
import { stripVTControlCharacters } from 'node:util';
import kleur from 'kleur';
import type {
  V1LabelSelector as LabelSelector,
  V1NodeSelectorRequirement as SelectorTerm,
  V1OwnerReference as Owner,
  V1Condition,
  V1PersistentVolumeClaim,
  V1PodTemplateSpec,
  V1Taint as Taint,
  V1Toleration as Toleration,
} from '@kubernetes/client-node';
import type { Dispatcher } from 'undici';

// ═══ 0 FRONT DOOR · pure ═════════════════════════════════════════════════════════════════════════
// A StatefulCluster keeps `spec.replicas` members alive. A member is an identity, its claims and at
// most one pod. An identity is born with its claims and lives until they are marked retired: the
// mark is the only record of an end, unretired claims without a pod are a member that returns. So
// a crash, a restart, an eviction or a lost status never ends one. Somebody's will ends an identity
// at once; a judgement (a silent node may come back) takes its seconds and is braked, so that no
// outage makes a cluster give itself up. There is no fencing: a replaced member on a node that
// nobody can reach may still be running there. From here to THE LINE all decides and touches
// nothing; below, all obeys.
//
// I1  An identity has at most one pod object at a time, on its own claims only. Once its claims are
//     marked retired it never gets a pod again, unless a user asks to restore it; a late request's
//     pod is deleted at once. An identity without claims never gets a second pod.
// I2  A claim is mounted by pods of one identity only; no two live members hold one index.
// I3  A claim is deleted only after its identity is over and its pod object gone, if it was marked
//     with policy Delete, or was made for a birth and never bound.
// I4  Under one leader live pods never exceed replicas + maxSurge, whatever crashes, repeats or
//     lags. After two processes overlapped, the surplus is at most the batch in flight.
// I5  By its own choice the operator never takes availability below replicas − maxUnavailable.
// I6  When faults end, status equals spec in bounded steps; then only watches and the Lease.
// I7  The operator never writes spec or metadata of the StatefulCluster.
// I8  Nothing that is not ours by name, label and UID is changed or deleted.
// I9  Every end has one Reason, the same word in the Event, the metric, the log, `replaces`, the
//     mark and the status; decided once, carried by the marks. Members without claims carry no
//     marks, and lose the word in a crash.
// I10 State that can follow is given up only by somebody's will, or by a judgement that is due and
//     not braked: never by a restart, a crash, an eviction or a gap in what was seen.

/** Every right that this operator needs; `tidy` holds the roles in deploy.yaml against it. */
export const RIGHTS: Readonly<Record<string, string>> = {
  'enge.me/statefulclusters': 'get list watch',
  'enge.me/statefulclusters/status': 'patch',
  'enge.me/statefulclusters/finalizers': 'update', // Asked of whoever sets blockOwnerDeletion.
  pods: 'get list watch create patch delete',
  'pods/resize': 'patch',
  'apps/controllerrevisions': 'get list watch create patch delete',
  persistentvolumeclaims: 'get list watch create patch delete',
  nodes: 'get list watch', // Without it, every node counts as open.
  persistentvolumes: 'get', // Without it, a volume counts as bound to the last known node.
  events: 'create',
  'coordination.k8s.io/leases': 'get list create update', // In the Lease's namespace only.
};

/** Names of labels and annotations. Of annotations only these are kept. */
export const MARK = {
  cluster: 'enge.me/statefulcluster',
  identity: 'enge.me/identity',
  index: 'apps.kubernetes.io/pod-index',
  ordinalName: 'statefulset.kubernetes.io/pod-name', // Of an adopted pod, for life.
  revision: 'controller-revision-hash',
  claims: 'enge.me/claims', // On claims of ours: '' from birth, later the seal.
  replaces: 'enge.me/replaces',
  returns: 'enge.me/returns', // On a pod before a deletion that ends no member with claims.
  retired: 'enge.me/retired',
  retiredAt: 'enge.me/retired-at',
  retiredPolicy: 'enge.me/retired-policy',
  replace: 'enge.me/replace',
  restore: 'enge.me/restore',
  inPlace: 'enge.me/in-place',
  paused: 'enge.me/paused',
  namespaces: 'enge.me/namespaces', // On a Lease, with the next one: its holder's scope.
  selector: 'enge.me/selector',
  deletionCost: 'controller.kubernetes.io/pod-deletion-cost',
  changeCause: 'kubernetes.io/change-cause',
  bindCompleted: 'pv.kubernetes.io/bind-completed',
  selectedNode: 'volume.kubernetes.io/selected-node',
  prune: 'argocd.argoproj.io/sync-options',
} as const;

/** Every number that bounds a decision; those that bound the work stand in WORLD. */
export const LIMITS = {
  batchMax: 500, // Members made in one pass, and in flight, reached by slow start 1, 2, 4, …
  statusMembersMax: 100,
  statusRetiredMax: 10,
  backoffMinMs: 10_000,
  backoffMaxMs: 300_000,
  earlyEndMs: 600_000, // Ends sooner after a birth are early; so long an end is remembered.
  heirLeadMs: 10_000, // A successor is drawn at most so long before the end that it fills.
  unplacedMs: 300_000, // A pod that no node takes for so long: Ready names the way out.
  readsMax: 30, // Others read anew before an Available member is taken down.
  trustMs: 60_000, // Watched this long, an object's own timestamps are believed.
  calmSeconds: 60, // Available this long, earlier restarts are forgotten.
  futureMaxMs: 3_600_000, // An identity further ahead of its object than this is forged.
  bringUpMaxMs: 600_000, // OrderedReady waits no longer than this for one member.
  leavingMaxMs: 30_000, // … nor longer than this past the grace period of a leaving one.
  trialMs: 60_000, // A revision that the API server refused is tried again after this long.
  messageMax: 32_768, // Characters of a condition's message that the API server takes.
  retryMaxMs: 30_000, // Of the pause after a pass or a watch that failed.
} as const;

// ═══ 1 VOCABULARY · pure ═════════════════════════════════════════════════════════════════════════
// The words of every other room, as readonly data. Objects from the API are projected to what is
// decided upon; times are milliseconds since 1970 (`…Ms`), or, as `uptime`, of a clock that never
// steps. No functions, no clever types.

type Dict = Readonly<Record<string, string>>;
type Json = Readonly<Record<string, unknown>>;
export type IntOrPercent = number | string;

/** `spec` of a StatefulCluster with all defaults filled in; see the CRD for the meaning of each. */
export interface Spec {
  readonly replicas: number;
  readonly suspend: boolean;
  readonly selector: LabelSelector;
  readonly template: V1PodTemplateSpec;
  readonly volumeClaimTemplates: readonly V1PersistentVolumeClaim[];
  readonly ordinals?: { readonly start: number };
  readonly serviceName: string;
  readonly podManagementPolicy: 'Parallel' | 'OrderedReady';
  readonly minReadySeconds: number;
  readonly revisionHistoryLimit: number;
  readonly updateStrategy: {
    readonly type: 'RollingUpdate' | 'OnDelete';
    readonly rollingUpdate: {
      readonly partition: IntOrPercent; // So many members stay at the revision before.
      readonly maxUnavailable: IntOrPercent; // Of the others so many are taken down at once,
      readonly maxSurge: IntOrPercent; // or so many are made beside them (Replace only).
      readonly paused: boolean;
      readonly podUpdatePolicy: 'InPlaceIfPossible' | 'InPlaceOnly' | 'Recreate' | 'Replace';
    };
  };
  readonly replacementPolicy: 'Always' | 'WhenVolumesLost';
  readonly liveness: {
    readonly nodeGoneSeconds: number;
    readonly nodeUnreachableSeconds: number;
    readonly volumeLostSeconds: number;
    readonly unreadySeconds: number; // Of this one and of the next two, 0 means never.
    readonly startupSeconds: number;
    readonly maxRestarts: number;
    readonly maxReplacements?: IntOrPercent;
  };
  readonly persistentVolumeClaimRetentionPolicy: Readonly<
    Record<'whenDeleted' | 'whenScaled' | 'whenReplaced' | 'whenLost', 'Retain' | 'Delete'>
  >;
}

/** What every object has. */
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
/** The custom resource. */
export interface StatefulCluster {
  readonly meta: Meta;
  readonly spec: Spec;
  readonly status: Partial<Status>;
}
/** A pod. */
export interface Pod {
  readonly meta: Meta;
  readonly node: string; // '' while unscheduled.
  readonly phase: string;
  readonly graceSeconds: number; // Of its deletion, once there is one.
  readonly claims: readonly string[]; // Names of the claims it mounts.
  readonly mountedMs: number | undefined; // Sandbox and volumes are there; undefined: not yet.
  readonly startedMs: number | undefined;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined; // Last transition of the Ready condition.
  readonly disruption: string; // Reason of its DisruptionTarget condition, or ''.
  readonly disruptedMs: number | undefined;
  readonly restarts: number;
  readonly isDown: boolean; // A container waits in its back-off, or has just ended.
  readonly trouble: string; // Why a container waits or the pod is not scheduled, or ''.
  readonly lastWords: string; // What kubelet or container, or else the scheduler, said last.
  readonly containers: Readonly<Record<string, readonly [id: string, image: string]>>;
  readonly isObserved: boolean; // The kubelet has seen its newest spec.
  readonly resize: string; // Why cpu and memory are not as in its spec yet, or ''.
}
/** A PersistentVolumeClaim. */
export interface Claim {
  readonly meta: Meta;
  readonly phase: string;
  readonly volume: string; // '' while unbound.
  readonly request: string; // spec.resources.requests.storage, a quantity.
  readonly spec: Json;
}
/** A ControllerRevision: a template as it was, and the names of the claim templates beside it. */
export interface Revision {
  readonly meta: Meta; // Its uid is '' as long as it is to be created.
  readonly hash: string; // The bare hash that pods carry in their label.
  readonly number: number; // The newest has the highest.
  readonly template: V1PodTemplateSpec;
  readonly claimTemplates: readonly string[];
}
/** A Kubernetes Node. */
export interface Node {
  readonly meta: Meta;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined;
  readonly unschedulable: boolean;
  readonly taints: readonly Taint[]; // NoSchedule and NoExecute.
}
/** A volume's node affinity: alternatives, each a list of requirements; none: any node. */
export type Volume = readonly (readonly SelectorTerm[])[];

/** Every Reason for which an identity ends (I9). Somebody's will ends it at once, a judgement is
 *  braked. `policy` is what its claims get, `early` what it says of a template if it comes soon
 *  after birth (nothing, unless it is named), `heir` whether the next member names it. */
export const ENDS = {
  Released: { kind: 'will', policy: 'Retain', early: 'unasked', heir: false },
  ReplaceRequested: { kind: 'will', policy: 'whenReplaced', early: '', heir: true },
  ClaimGone: { kind: 'will', policy: 'whenLost', early: 'unasked', heir: true },
  PodDeleted: { kind: 'will', policy: 'whenLost', early: 'unasked', heir: true },
  NodeOutOfService: { kind: 'will', policy: 'whenLost', early: '', heir: true },
  NodeUnreachable: { kind: 'judgement', policy: 'whenLost', early: '', heir: true },
  NodeGone: { kind: 'judgement', policy: 'whenLost', early: '', heir: true },
  PodEvicted: { kind: 'judgement', policy: 'whenLost', early: 'claimless', heir: true },
  VolumeLost: { kind: 'judgement', policy: 'whenLost', early: '', heir: true },
  Unready: { kind: 'judgement', policy: 'whenLost', early: 'template', heir: true },
  StartupTimeout: { kind: 'judgement', policy: 'whenLost', early: 'template', heir: true },
  CrashLoop: { kind: 'judgement', policy: 'whenLost', early: 'template', heir: true },
  PodFailed: { kind: 'will', policy: 'whenLost', early: 'claimless', heir: true },
  NameTaken: { kind: 'will', policy: 'whenLost', early: 'unasked', heir: true },
  IndexTaken: { kind: 'will', policy: 'whenLost', early: 'unasked', heir: true },
  ScaledIn: { kind: 'will', policy: 'whenScaled', early: '', heir: false },
  Updated: { kind: 'will', policy: 'whenReplaced', early: '', heir: true },
  Suspended: { kind: 'will', policy: 'whenLost', early: '', heir: false },
} as const;
export type EndReason = keyof typeof ENDS;
/** Why something is done: the same word everywhere (I9). */
export type Reason = EndReason | Arrival | Upkeep;
type Arrival = 'ScaledOut' | 'Recreated' | 'Returned' | 'Restored' | 'Adopted';
type Upkeep = 'Relabelled' | 'Sealed' | 'Expanded' | 'Owned' | 'Revised';

/** What a member is; the same words in the status, in metrics and in the CLI. */
export const STATES = [
  'Pending', // Its pod has no node yet.
  'Starting', // It was never Ready.
  'Ready', // But not for minReadySeconds.
  'Available',
  'Unready', // It was Ready before.
  'Updating', // It is being changed in place.
  'Withheld', // It is judged, and the brake, or the lack of a successor, keeps it.
  'Returning', // It is between two pods.
  'Suspended', // It is between two pods until `suspend` is taken back.
  'Retiring', // Its identity is ending or over, and its pod object is still there.
] as const;
export type State = (typeof STATES)[number];

/** What a node is to the pods of a cluster: open, or Ready but closed to them, as it is cordoned,
 *  or by somebody's taint tainted, or by one of Kubernetes' own pressed, which says nothing about
 *  the disks; silent = not Ready; gone = absent; none = the pod is on no node. */
export type NodeWord =
  'open' | ('cordoned' | 'tainted' | 'pressed') | ('silent' | 'gone' | 'outOfService') | 'none';

/** An identity with what exists of it. */
export interface Member {
  readonly identity: string;
  readonly pod: Pod | undefined;
  readonly claims: readonly Claim[]; // Oldest first.
  readonly leftovers: readonly Claim[]; // Of ours, that neither its pod nor its seal names.
  readonly life: 'live' | 'ending' | 'over'; // ending: the oldest claim is marked, not all.
  readonly retired: Retired | undefined; // What the mark says; undefined as long as it is live.
  readonly isBlocked: string; // Whose object stands in the place of its next pod, or ''.
  readonly index: number | undefined;
  readonly node: NodeWord;
  readonly end: End | undefined;
  readonly state: State;
}
/** What speaks for the end of an identity. It is due when `dueInMs` is 0. */
export interface End {
  readonly reason: EndReason;
  readonly kind: 'will' | 'judgement'; // An eviction is a will where no claim is left to judge.
  readonly dueInMs: number;
  readonly sinceMs: number | undefined;
  readonly evidence: string; // Under this key its first sight is kept.
}
/** The mark of an end. */
export interface Retired {
  readonly reason: EndReason;
  readonly atMs: number;
}

/** What one process remembers of a cluster between passes. To lose it makes the operator wait
 *  longer; it never ends an identity sooner. `tidy` keeps the list of its fields. */
export interface Desk {
  readonly seen: ReadonlyMap<string, number>; // Evidence → uptime of its first sight.
  readonly went: ReadonlyMap<string, Went>; // Identity → its last pod, as this process saw it go.
  readonly calm: ReadonlyMap<string, number>; // Pod UID → its restarts when it was last calm.
  readonly backoff: ReadonlyMap<string, Backoff>;
}
/** A pod that went, and the end of its identity, if this process did that. */
export interface Went {
  readonly pod: Pod | undefined;
  readonly reason: EndReason | undefined;
  readonly atMs: number;
}
/** What was refused, or came too often. */
export interface Backoff {
  readonly times: number;
  readonly untilUptime: number; // Then it may be tried again.
  readonly message: string; // Empty for what came too often.
}

/** All that a decision rests on. */
export interface Snapshot {
  readonly cluster: StatefulCluster;
  readonly pods: ReadonlyMap<string, Pod>;
  readonly claims: ReadonlyMap<string, Claim>;
  readonly revisions: ReadonlyMap<string, Revision>;
  readonly nodes: ReadonlyMap<string, Node> | undefined; // undefined: no right to read them.
  readonly volumes: ReadonlyMap<string, Volume>; // Absent: not read yet, or not readable.
  readonly volumesReadable: boolean;
  readonly bodies: ReadonlyMap<string, Json>; // Whole pods and trials, as read in this pass.
  readonly answers: ReadonlyMap<string, string>; // What was asked in this pass; '' = read, passed.
  readonly desk: Desk;
  readonly denied: string; // Why its children may not be read any more, or ''.
  readonly uptime: number;
}
export type Kind = 'pods' | 'persistentvolumeclaims' | 'controllerrevisions';
/** A thing to read anew before the decision can be made. A trial is a dry-run of a new pod of a
 *  revision, and of its claims, of which none may be refused. */
export interface Ref {
  readonly kind: Kind | 'nodes' | 'persistentvolumes' | 'statefulclusters' | 'trials';
  readonly name: string;
  readonly trial?: Revision;
  readonly withClaims?: boolean;
}

/** Marks come before ends, so that a crash leaves no member ended and unmarked; what is upkeep
 *  (`keep`) holds nothing else up. */
export const STAGES = ['revise', 'mark', 'end', 'free', 'make', 'keep'] as const;
/** What can be done: verb → its stage, and its words in Events. */
export const VERBS = {
  record: ['revise', 'recorded revision'],
  seal: ['mark', 'sealed'],
  adopt: ['mark', 'adopted'],
  retire: ['mark', 'retired claim'],
  restore: ['mark', 'restored claim'],
  announce: ['mark', 'marked'],
  release: ['end', 'released'],
  end: ['end', 'deleted pod'],
  free: ['free', 'deleted claim'],
  make: ['make', 'created'],
  update: ['keep', 'updated in place'],
  relabel: ['keep', 'labelled'],
  own: ['keep', 'changed the owner of'],
  expand: ['keep', 'expanded claim'],
  forget: ['keep', 'deleted revision'],
} as const;
export type Verb = keyof typeof VERBS;
interface Doing {
  readonly verb: Verb;
  readonly because: Reason;
  readonly identity: string; // Of the member that it is about; '' = the cluster's own.
}
interface Touching extends Doing {
  readonly kind: Kind;
  readonly object: Pod | Claim | Revision;
}
/** Changes the very object and version that was decided upon, by a merge patch. The verb `update`
 *  changes a living pod: by strategic patches, of which `resize` goes first, to its subresource. */
export interface Patch extends Touching {
  readonly do: 'Patch';
  readonly change: Json;
  readonly resize?: Json | undefined;
}
/** Deletes the very object that was decided upon; a claim only in that version (I3). */
export type Delete = Touching & { readonly do: 'Delete' };
/** Makes what a member lacks: claims first, then the pod. Bodies are built when they are sent. */
export interface Make extends Doing {
  readonly do: 'Make';
  readonly revision: Revision;
  readonly claims: readonly string[]; // Names of the claim templates of which one is to be made.
  readonly index: number | undefined;
  readonly replaces?: string | undefined; // `<identity> <Reason>`.
  readonly after?: string | undefined; // The identity whose end in this pass makes room for it.
}
/** Makes the ControllerRevision of a template. */
export type Keep = Doing & { readonly do: 'Keep'; readonly revision: Revision };
export type Action = Patch | Delete | Make | Keep;

/** A plan is either a question or an answer. */
export type Decision = { readonly ask: readonly Ref[] } | Plan;
/** What is to be done in this pass, and why nothing is where nothing is. */
export interface Plan {
  readonly ask?: undefined;
  readonly members: readonly Member[];
  readonly actions: readonly Action[];
  readonly evidence: readonly string[]; // Keys in force, for Desk.seen; and for Desk.calm:
  readonly calm: ReadonlyMap<string, number>;
  readonly wakeMs: number; // Look again after this long at the latest; Infinity = on events only.
  readonly revisions: Revisions;
  readonly behind: number; // Members that an update has yet to reach.
  readonly stalled: string; // Why nothing can be created, or ''.
  readonly blocked: string; // Why an update cannot go on, or ''.
  readonly withheld: string; // Why judged members are not replaced, or ''.
  readonly notes: readonly string[]; // What a user should know, for the conditions' message.
}
/** The revisions in force. */
export interface Revisions {
  readonly update: Revision; // What spec.template says.
  readonly current: Revision; // Most of the others have it; else it is `update`.
  readonly collisionCount: number;
}
export type Condition = Readonly<Omit<V1Condition, 'lastTransitionTime'>> & {
  readonly status: 'True' | 'False';
  readonly lastTransitionTime: string;
};
/** One line of `status.retired`. */
export interface RetiredStatus {
  readonly identity: string;
  readonly reason: string;
  readonly message?: string; // The last words of its pod.
  readonly at: string;
  readonly claims: readonly string[];
  readonly replacedBy: string;
}
/** A hint for people and tools. Decisions read back only `newestIdentity`, which can but raise the
 *  next one, `currentRevision` and `collisionCount`: never an identity or a claim. */
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
  readonly members: readonly ReturnType<typeof memberStatus>[];
  readonly retired: readonly RetiredStatus[];
  readonly conditions: readonly Condition[];
}

// ═══ 2 TOOLS · pure ══════════════════════════════════════════════════════════════════════════════
// Small functions without a domain: ownership, conditions, canonical JSON, int or percent, labels,
// quantities. They must not know what a member is.

export const hasController = ({ owners }: Meta): boolean => owners.some((o) => o.controller);
export const isControlledBy = ({ owners }: Meta, uid: string): boolean =>
  owners.some((o) => o.controller && o.uid === uid);
export const isTerminating = ({ meta }: { meta: Meta }): boolean => meta.deletedMs !== undefined;

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

/** intstr.GetScaledValueFromIntOrPercent: an int as it is, a percent of `total`, rounded. */
export function scaledValue(value: IntOrPercent, total: number, round: 'up' | 'down'): number {
  if (typeof value === 'number') return value;
  const share = (Number.parseInt(value, 10) * total) / 100;
  return round === 'up' ? Math.ceil(share) : Math.floor(share);
}

/** One term of a label or node selector. An operator newer than this program matches nothing. */
export function termMatches({ key, operator, values = [] }: SelectorTerm, labels: Dict): boolean {
  const value = labels[key];
  if (operator === 'NotIn') return value === undefined || !values.includes(value);
  if (operator === 'DoesNotExist') return value === undefined;
  if (value === undefined) return false;
  if (operator === 'In') return values.includes(value);
  if (operator === 'Gt') return Number(value) > Number(values[0]);
  if (operator === 'Lt') return Number(value) < Number(values[0]);
  return operator === 'Exists';
}
/** All terms of a selector: a pair of `matchLabels` is an `In` of one value. */
const termsIn = ({ matchLabels = {}, matchExpressions = [] }: LabelSelector): SelectorTerm[] => [
  ...Object.entries(matchLabels).map(([key, v]) => ({ key, operator: 'In', values: [v] })),
  ...matchExpressions,
];
/** Does the selector match? An empty one matches everything. */
export const selectorMatches = (selector: LabelSelector, labels: Dict): boolean =>
  termsIn(selector).every((term) => termMatches(term, labels));
/** As a list request and the scale subresource take it. */
export function selectorText(selector: LabelSelector): string {
  const texts = termsIn(selector).map(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key;
    if (operator === 'DoesNotExist') return `!${key}`;
    const isPair = operator === 'In' && values.length === 1;
    return isPair ? `${key}=${values[0]}` : `${key} ${operator.toLowerCase()} (${values.join()})`;
  });
  return texts.sort().join();
}

/** metav1 rule: lastTransitionTime moves only when the status does. What a webhook says is cut. */
export function setCondition(
  { meta, status: { conditions = [] } }: StatefulCluster,
  next: Pick<Condition, 'type' | 'status' | 'reason' | 'message'>,
  now: number,
): Condition {
  const same = conditions.find((c) => c.type === next.type && c.status === next.status);
  const lastTransitionTime = same?.lastTransitionTime ?? timeText(now);
  const message = next.message.slice(0, LIMITS.messageMax);
  return { ...next, message, observedGeneration: meta.generation, lastTransitionTime };
}

const UNITS = ['m', '', 'k', 'M', 'G', 'T', 'P', 'E'];
/** resource.Quantity as a number, precise enough to tell larger from smaller; NaN for no number. */
export function quantity(text: string): number {
  const [, value, unit = '', binary] =
    /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([mkKMGTPE]?)(i?)$/.exec(text) ?? [];
  const power = UNITS.indexOf(binary && unit === 'K' ? 'k' : unit) - 1;
  return power < -1 ? NaN : Number(value) * (binary ? 1024 : 1000) ** power;
}

const unique = <T>(items: Iterable<T>): T[] => [...new Set(items)];
const dictOf = (value: unknown): Dict => (value ?? {}) as Dict;
/** Up to three names, then how many more: for messages that people read. */
export function fewNames(names: readonly string[]): string {
  const rest = names.length - 3;
  return rest > 0 ? `${names.slice(0, 3).join(', ')} and ${rest} more` : names.join(', ');
}

const doubled = (times: number): number =>
  Math.min(LIMITS.backoffMinMs * 2 ** Math.min(times - 1, 10), LIMITS.backoffMaxMs);
/** After one more failure: 10 s doubling to 5 min. */
export function nextBackoff(before: Backoff | undefined, message: string, uptime: number): Backoff {
  const times = (before?.times ?? 0) + 1;
  return { times, untilUptime: uptime + doubled(times), message };
}
/** What must still wait, if it must. */
export function waiting(all: Desk['backoff'], key: string, uptime: number): Backoff | undefined {
  const found = all.get(key);
  return found && uptime < found.untilUptime ? found : undefined;
}

// ═══ 3 IDENTITY · pure ═══════════════════════════════════════════════════════════════════════════
// How an identity is drawn and read, whose a pod or a claim is, and the bodies that are made of a
// template. It must not know whether a member is healthy.

/** Kubernetes' safe alphabet (no vowels, no 0 1 3), in ASCII order: text order is age order. */
export const ALPHABET = '2456789bcdfghjklmnpqrstvwxz';
const BASE = ALPHABET.length;
const CHANCES = BASE ** 3; // Identities of one second.
const EPOCH_MS = Date.UTC(2020, 0, 1);
const IDENTITY = new RegExp(`^[${ALPHABET}]{10}$`);

/** The last `width` digits of a number in base 27. */
export function digits(value: number, width: number): string {
  const text = Math.floor(value).toString(BASE).padStart(width, '0').slice(-width);
  return text.replace(/./g, (digit) => ALPHABET.charAt(Number.parseInt(digit, BASE)));
}
const valueOf = (text: string): number =>
  [...text].reduce((sum, c) => sum * BASE + ALPHABET.indexOf(c), 0);

/** Second of birth since 2020, or -1 for an adopted identity, which carries no time. */
export const birthSecond = (identity: string): number =>
  IDENTITY.test(identity) ? valueOf(identity.slice(0, 7)) : -1;
export const birthMs = (identity: string): number => EPOCH_MS + birthSecond(identity) * 1000;

/** Oldest first. Identities that carry no time are older than all others. */
export function byAge(a: string, b: string): number {
  const order = birthSecond(a) - birthSecond(b) || a.length - b.length; // Ordinals: 9 before 10.
  return order || (a < b ? -1 : Number(a > b));
}

/** The youngest that carries a time, or ''. */
export const youngest = (identities: Iterable<string>): string =>
  [...identities].reduce((last, id) => (birthSecond(id) >= 0 && id > last ? id : last), '');

/** Draws `count` identities, each younger than all known ones: a clock set back cannot bring an
 *  identity back (I1), and names sort by age. A second with little room left is skipped. */
export function allocate(
  count: number,
  known: Iterable<string>,
  now: number,
  random: () => number,
): readonly string[] {
  const second = Math.floor((now - EPOCH_MS) / 1000);
  const newest = youngest(known);
  let least = Math.max(second * CHANCES, newest ? valueOf(newest) + 1 : 0);
  let room = CHANCES - (least % CHANCES); // What is left of its second.
  if (room < 2 * count) [least, room] = [least + room, CHANCES];
  if (least + room > BASE ** 10) throw new Error('an identity has seven digits for its second');
  const drawn = new Set<number>();
  while (drawn.size < Math.min(count, CHANCES / 2)) drawn.add(least + Math.floor(random() * room));
  return [...drawn].sort((a, b) => a - b).map((value) => digits(value, 10));
}

export const podName = (cluster: string, identity: string): string => `${cluster}-${identity}`;
export const claimName = (template: string, cluster: string, identity: string): string =>
  `${template}-${cluster}-${identity}`;
export const claimTemplateNames = (spec: Spec): readonly string[] =>
  spec.volumeClaimTemplates.map((t) => t.metadata?.name ?? '');
/** The identity that a pod's name carries, which no one can strip; '' for a name not of ours. */
export const identityOf = (pod: Pod, cluster: string): string =>
  pod.meta.name.startsWith(`${cluster}-`) ? pod.meta.name.slice(cluster.length + 1) : '';
export const ourLabels = (cluster: string, identity: string): Dict => ({
  [MARK.cluster]: cluster,
  [MARK.identity]: identity,
});
/** Is its controller an earlier object of this cluster's name? Garbage collection takes such a pod
 *  or claim, or frees it. */
export const isOfFormer = ({ owners }: Meta, { name, uid }: Meta): boolean =>
  owners.some(
    (o) => o.controller && o.kind === 'StatefulCluster' && o.name === name && o.uid !== uid,
  );

const labelOf = ({ meta }: { meta: Meta }): string => meta.labels[MARK.identity] ?? '';
/** Does one of these templates name it, for the identity in its label? */
const isNamedBy = (all: readonly string[], cluster: StatefulCluster, claim: Claim): boolean =>
  all.some((t) => claimName(t, cluster.meta.name, labelOf(claim)) === claim.meta.name);
/** Another controller has it. */
const isOthers = ({ meta }: Claim, cluster: StatefulCluster): boolean =>
  hasController(meta) && !isControlledBy(meta, cluster.meta.uid);
/** Is this claim one of ours, of the identity that its label names? By its labels, by its name (of
 *  a template, or in its pod), by its owners, and by the mark of the operator, of adoption or of a
 *  restore. The one door for claims that others made: retired, and to be restored. Anything else
 *  moves nothing, whatever it carries. */
export function isOurClaim(
  claim: Claim,
  cluster: StatefulCluster,
  templates: readonly string[],
  pod: Pod | undefined,
): boolean {
  const { meta } = claim;
  if (!meta.labels[MARK.identity] || meta.labels[MARK.cluster] !== cluster.meta.name) return false;
  const isNamed = pod?.claims.includes(meta.name) || isNamedBy(templates, cluster, claim);
  if (!isNamed || isOthers(claim, cluster)) return false;
  const isGiven = MARK.retired in meta.annotations && meta.annotations[MARK.restore] === 'true';
  return MARK.claims in meta.annotations || (isGiven && !hasController(meta));
}
/** The names that a claim's seal holds; none while it is unsealed. */
export const sealOf = (claim: Claim | undefined): readonly string[] =>
  (claim?.meta.annotations[MARK.claims] ?? '').split(' ').filter(Boolean);
/** Nothing was ever written to it: the operator made it for a birth, and no volume was bound. */
export const isNeverBound = ({ meta, phase, volume }: Claim): boolean =>
  phase === 'Pending' &&
  volume === '' &&
  meta.annotations[MARK.claims] === '' &&
  !(MARK.bindCompleted in meta.annotations);

/** What counts of a template, as text: of its metadata only labels and annotations. */
function templateText(template: unknown): string {
  const { metadata, spec } = template as V1PodTemplateSpec;
  return canonicalJson({ labels: metadata?.labels, annotations: metadata?.annotations, spec });
}
/** The bare revision: hash of a template, spelled in our alphabet. `collisionCount` moves it off a
 *  revision of another template with the same hash, as in ReplicaSet. */
export function revisionHash(template: unknown, collisionCount: number): string {
  const text = templateText(template) + (collisionCount > 0 ? String(collisionCount) : '');
  return digits(createHash('sha256').update(text).digest().readUIntBE(0, 6), 10);
}

/** The revision of `spec.template`: one of ours with an equal template, whatever version of this
 *  program made it; else a new one, under a name that no other revision has (`collisionCount`). */
export function updateRevisionOf(
  cluster: StatefulCluster,
  revisions: ReadonlyMap<string, Revision>,
): Omit<Revisions, 'current'> {
  const { meta, spec } = cluster;
  const { template } = spec;
  const claimTemplates = claimTemplateNames(spec);
  let collisionCount = cluster.status.collisionCount ?? 0;
  const ours = [...revisions.values()].filter((r) => isControlledBy(r.meta, meta.uid));
  ours.sort((a, b) => b.number - a.number);
  const text = templateText(template);
  const found = ours.find((r) => templateText(r.template) === text);
  if (found) return { update: { ...found, claimTemplates }, collisionCount };
  let hash = revisionHash(template, collisionCount);
  while (revisions.has(`${meta.name}-${hash}`)) hash = revisionHash(template, ++collisionCount);
  const name = `${meta.name}-${hash}`;
  const number = (ours[0]?.number ?? 0) + 1;
  const fresh = { ...meta, name, uid: '', labels: {}, annotations: {}, owners: [] };
  return { update: { meta: fresh, hash, number, template, claimTemplates }, collisionCount };
}

/** Nobody else says what is under our keys. */
const withoutOurs = (dict: unknown): Dict => {
  const isOurs = (key: string): boolean => key.startsWith('enge.me/') || key === MARK.revision;
  return Object.fromEntries(Object.entries(dictOf(dict)).filter(([key]) => !isOurs(key)));
};
/** What a template's own labels come to: the selector's, then the template's, the later win. */
const templateLabels = ({ spec }: StatefulCluster, template: V1PodTemplateSpec): Dict => ({
  ...spec.selector.matchLabels,
  ...withoutOurs(template.metadata?.labels),
});
/** Labels of a member's pod: those of its template, then ours, the later win. */
export const podLabels = (
  cluster: StatefulCluster,
  identity: string,
  { template, hash }: Pick<Revision, 'template' | 'hash'>,
): Dict => ({
  ...templateLabels(cluster, template),
  [MARK.revision]: hash,
  ...ourLabels(cluster.meta.name, identity),
});

export const ownerOf = (cluster: StatefulCluster): Owner => ({
  apiVersion: 'enge.me/v1alpha1',
  kind: 'StatefulCluster',
  name: cluster.meta.name,
  uid: cluster.meta.uid,
  controller: true,
  blockOwnerDeletion: true,
});

/** Not the taint manager sets the time of a replacement, but `liveness`, where nodes can be read,
 *  and unless the template has a toleration of its own. */
function tolerationsOf(template: V1PodTemplateSpec, nodesReadable: boolean): readonly Toleration[] {
  const own = (template.spec?.tolerations ?? []) as readonly Toleration[];
  const added = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']
    .map((key) => ({ key, operator: 'Exists', effect: 'NoExecute' }))
    .filter((taint) => nodesReadable && !isTolerated(taint, own));
  return [...own, ...added];
}

const indexLabel = (index: number | undefined): Dict =>
  index === undefined ? {} : { [MARK.index]: String(index) };
/** The Reason in what `enge.me/replaces` records: `<identity> <Reason>`; '' for none. */
const reasonIn = (replaces = ''): string => replaces.split(' ')[1] ?? '';

// ═══ 4 HEALTH · pure ═════════════════════════════════════════════════════════════════════════════
// What is known of one member, and what follows from it: the words for nodes, the table of what
// ends an identity, and the member's state. It must not know how many members are wanted, nor
// whether the brake lets a judged one go.

/** One decision in the making: what the leaves of plan() read, and what they add to. */
function newDraft(s: Snapshot, now: number, random: () => number) {
  const update = updateRevisionOf(s.cluster, s.revisions);
  return {
    s,
    spec: s.cluster.spec,
    name: s.cluster.meta.name,
    now,
    random,
    members: [] as readonly Member[], // Oldest first.
    strays: [] as readonly Bare[], // Claims that make no member, by identity.
    ends: [] as readonly Known[], // Of earlier passes.
    revisions: { ...update, current: update.update } as Revisions,
    ending: new Map<string, EndReason>(), // Identities that end in this pass.
    indices: new Map<number | undefined, Member | undefined>(), // undefined: given in this pass.
    actions: [] as Action[],
    ask: new Map<string, Ref>(),
    unknown: new Set<string>(), // Identities of which a question has no answer: left alone.
    evidence: [] as string[],
    // Look again after so many milliseconds: what was refused is tried again.
    wakes: [...s.desk.backoff.values()].map((b) => b.untilUptime - s.uptime),
    notes: [] as string[],
    blocked: '',
  };
}
type Draft = ReturnType<typeof newDraft>;
export const keyOfRef = (ref: Pick<Ref, 'kind' | 'name'>): string => `${ref.kind}/${ref.name}`;
const refOf = (kind: Ref['kind'], name: string): Ref => ({ kind, name });
export const NO_ANSWER = 'no answer: '; // So begin the words of what is unknown, not refused.
/** Was all this read anew in this pass? What was not is asked for; what has no answer leaves the
 *  member alone. */
function isRead(d: Draft, identity: string, ...refs: readonly Ref[]): boolean {
  for (const ref of refs) {
    const answer = d.s.answers.get(keyOfRef(ref));
    if (answer === undefined) d.ask.set(keyOfRef(ref), ref);
    else if (answer !== '' && identity !== '') d.unknown.add(identity);
  }
  return refs.every((ref) => d.s.answers.get(keyOfRef(ref)) === '');
}

const isTerminal = (pod: Pod): boolean => pod.phase === 'Failed' || pod.phase === 'Succeeded';
const isBound = (claim: Claim): boolean => claim.volume !== '';
/** There, and neither on its way out nor ended. */
const isUp = (pod: Pod | undefined): pod is Pod =>
  pod !== undefined && !isTerminating(pod) && !isTerminal(pod);
/** A pod's first Ready=False is written at its start; a later one says that it was Ready. */
const wasReady = (pod: Pod): boolean =>
  pod.ready || (pod.readySinceMs ?? 0) > (pod.startedMs ?? Infinity) + 1000;
/** Ready for `minReadySeconds`, as Deployment counts it, and neither ending nor ended. */
export function isAvailable(pod: Pod, minReadySeconds: number, now: number): boolean {
  if (!pod.ready || !isUp(pod)) return false;
  return minReadySeconds === 0 || now - (pod.readySinceMs ?? now) >= minReadySeconds * 1000;
}

/** What `enge.me/in-place` says of an update under way: the revision, and of each container that
 *  must restart its ID and image before. Whatever else is written there names no revision. */
export function inPlaceOf({ meta }: Pick<Pod, 'meta'>) {
  const text = meta.annotations[MARK.inPlace];
  if (text === undefined) return undefined;
  try {
    const { revision, before } = JSON.parse(text) as Json;
    return { revision: String(revision), before: (before ?? {}) as Pod['containers'] };
  } catch {
    return { revision: '', before: {} }; // A hand wrote it, and the next update replaces it.
  }
}
/** The kubelet did what was asked: each container whose stored image changed has another ID (an
 *  image string would not tell, and the generation is observed *before* the restart; an image that
 *  admission put back changes nothing), cpu and memory are as in the spec, and the pod is Ready. */
export function isApplied(pod: Pod): boolean {
  const waits = Object.entries(inPlaceOf(pod)?.before ?? {}).some(([name, before]) => {
    const [id, image] = pod.containers[name] ?? ['', ''];
    return Array.isArray(before) && image !== before[1] && (id === '' || id === before[0]);
  });
  return !waits && pod.isObserved && pod.resize === '' && pod.ready;
}

// ─── Nodes and volumes ───────────────────────────────────────────────────────────────────────────

const OF_KUBERNETES = /^node\.(cloudprovider\.)?kubernetes\.io\//;
const isTolerated = (taint: Taint, all: readonly Toleration[]): boolean =>
  all.some(
    (t) =>
      (!t.key || t.key === taint.key) &&
      (!t.effect || t.effect === taint.effect) &&
      (t.operator === 'Exists' || (t.value ?? '') === (taint.value ?? '')),
  );
function nodeWord(s: Snapshot, name: string): NodeWord {
  if (name === '') return 'none';
  if (s.nodes === undefined) return 'open'; // Blind: DisruptionTarget stands in, see endOf.
  const node = s.nodes.get(name);
  if (!node) return 'gone';
  if (node.taints.some((t) => t.key === 'node.kubernetes.io/out-of-service')) return 'outOfService';
  if (!node.ready) return 'silent';
  if (node.unschedulable) return 'cordoned';
  const tolerated = tolerationsOf(s.cluster.spec.template, true);
  const bars = node.taints.filter((taint) => !isTolerated(taint, tolerated));
  if (bars.length === 0) return 'open';
  return bars.every((taint) => OF_KUBERNETES.test(taint.key)) ? 'pressed' : 'tainted';
}
const isDown = (word: NodeWord): boolean => ['silent', 'gone', 'outOfService'].includes(word);
/** Is one open that the template's nodeSelector allows? Affinity is not looked at. */
function hasOpenNode(s: Snapshot): boolean {
  const { nodeSelector: matchLabels = {} } = s.cluster.spec.template.spec ?? { containers: [] };
  const isOpen = ({ meta }: Node): boolean =>
    selectorMatches({ matchLabels }, meta.labels) && nodeWord(s, meta.name) === 'open';
  return s.nodes === undefined || [...s.nodes.values()].some(isOpen);
}

/** The node of its pod, of the one that this process saw go, or that the scheduler chose. */
export function lastNodeOf(s: Snapshot, m: Pick<Member, 'identity' | 'pod' | 'claims'>): string {
  const chosen = m.claims.map((c) => c.meta.annotations[MARK.selectedNode]).find(Boolean) ?? '';
  return m.pod?.node || s.desk.went.get(m.identity)?.pod?.node || (m.pod ? '' : chosen);
}
/** A volume names nodes if its affinity has a key that ends in neither `zone` nor `region`: local
 *  drivers have keys of their own. Any other can follow, also to a node that is yet to be made. */
const namesNodes = (volume: Volume): boolean =>
  volume.some((all) => all.some(({ key }) => !/(zone|region)$/.test(key)));

/** The nodes that all volumes of a member allow; undefined if none of them names nodes.
 *  A volume that cannot be read counts as naming the node its pod was last on. */
function nodesAllowed({ s }: Draft, m: Bare): readonly Node[] | undefined {
  if (s.nodes === undefined) return undefined;
  const last = lastNodeOf(s, m);
  const tests = m.claims.flatMap(({ meta, volume: name }): ((node: Node) => boolean)[] => {
    const volume = s.volumes.get(name);
    const only = name === '' ? meta.annotations[MARK.selectedNode] : last;
    if (!volume) return only ? [(node) => node.meta.name === only] : [];
    const fits = ({ meta: { labels } }: Node): boolean =>
      volume.some((all) => all.every((term) => termMatches(term, labels)));
    return namesNodes(volume) ? [fits] : [];
  });
  if (tests.length === 0) return undefined;
  return [...s.nodes.values()].filter((node) => tests.every((fits) => fits(node)));
}
/** Volumes that must be known before anything is said of a member that does not run. */
function readsVolumes(d: Draft, m: Bare): boolean {
  const { s } = d;
  if (s.nodes === undefined || !s.volumesReadable) return true;
  const unread = m.claims.filter((c) => isBound(c) && !s.volumes.has(c.volume));
  return isRead(d, m.identity, ...unread.map((c) => refOf('persistentvolumes', c.volume)));
}

// ─── What ends an identity ───────────────────────────────────────────────────────────────────────

type Bare = Omit<Member, 'end' | 'state'>;
/** Else: no pod, or one that is Pending, terminal, going or on a node that is gone. A pod that lost
 *  its owner is still its pod, and is adopted. */
const isRunning = ({ pod, node, isBlocked }: Bare): boolean =>
  (isUp(pod) && pod.phase !== 'Pending' && node !== 'gone') || isBlocked.startsWith('orphan');

/** How long evidence counts. Up to 60 s it counts only as far as this process watched it itself;
 *  then the object's own timestamps are believed. So neither a restart nor one clock decides. */
export function lastedMs(sinceMs: number | undefined, watchedMs: number, now: number): number {
  const own = sinceMs === undefined ? watchedMs : now - sinceMs;
  if (watchedMs >= LIMITS.trustMs) return Math.max(watchedMs, own);
  return Math.max(0, Math.min(watchedMs, own));
}
/** Under this key the first sight of evidence is kept. A changed transition time is new evidence,
 *  so a flap between two looks is not counted as one. */
function evidenceKey(d: Draft, m: Bare, reason: EndReason, sinceMs?: number): string {
  const pod = m.pod ?? d.s.desk.went.get(m.identity)?.pod;
  return [reason, m.identity, pod?.meta.uid ?? '', sinceMs ?? ''].join('/');
}
/** What speaks for an end, and in how many seconds it is due. */
function endBy(d: Draft, m: Bare, reason: EndReason, seconds = 0, sinceMs?: number): End {
  const evidence = evidenceKey(d, m, reason, sinceMs);
  d.evidence.push(evidence);
  const watchedMs = d.s.uptime - (d.s.desk.seen.get(evidence) ?? d.s.uptime);
  const dueInMs = Math.max(0, seconds * 1000 - lastedMs(sinceMs, watchedMs, d.now));
  // The object's own times may count, from when it was watched for a minute.
  if (dueInMs > 0) d.wakes.push(dueInMs, Math.max(0, LIMITS.trustMs - watchedMs) || Infinity);
  const isLeft = reason === 'PodEvicted' && m.claims.length === 0;
  return { reason, kind: isLeft ? 'will' : ENDS[reason].kind, dueInMs, sinceMs, evidence };
}

/** The table of DESIGN.md: the first row that matches, or undefined. Anything that no row names
 *  (eviction, preemption, pod GC, pressure, a pod that ended by itself or vanished unseen) ends
 *  nothing: the member returns. Members without claims end wherever others return. */
function endOf(d: Draft, m: Bare): End | undefined {
  const { pod } = m;
  if (isUp(pod) && isTakenOut(d, pod)) return endBy(d, m, 'Released');
  const asked = [pod, ...m.claims].map((o) => o?.meta.annotations[MARK.replace]);
  if (asked.includes('true')) return endBy(d, m, 'ReplaceRequested');
  if (!isRunning(m) && isClaimGone(d, m)) return endBy(d, m, 'ClaimGone');
  if (m.isBlocked.startsWith('foreign') && m.claims.every(isNeverBound))
    return endBy(d, m, 'NameTaken');
  if (d.spec.suspend) return undefined; // Nobody is judged, and whose pod goes returns.
  if (pod && ownClaims(pod).length === 0 && isTerminal(pod))
    return endBy(d, m, pod.disruption ? 'PodEvicted' : 'PodFailed', 0, pod.readySinceMs);
  if (d.spec.replacementPolicy === 'Always' && isDeletedByHand(d, m))
    return endBy(d, m, 'PodDeleted');
  return endByNode(d, m) ?? endByVolumes(d, m) ?? endByPod(d, m);
}

/** So begin the words of a trial that came back with labels that leave `spec.selector`. */
export const ADMISSION = 'admission changes the labels of new pods';
/** Does `spec.selector` match it, once labels of ours that it lacks are put back? */
function isSelected({ cluster: { meta, spec } }: Snapshot, pod: Pod): boolean {
  const ours = ourLabels(meta.name, identityOf(pod, meta.name));
  return selectorMatches(spec.selector, { ...pod.meta.labels, ...ours });
}
/** Its user took the pod out of `spec.selector`: not if admission did, as a trial shows, or has
 *  shown to this process. */
function isTakenOut(d: Draft, pod: Pod): boolean {
  if (isSelected(d.s, pod)) return false;
  const words = trialOf(d, d.revisions.update, false) ?? NO_ANSWER;
  if (words.startsWith(ADMISSION)) d.blocked ||= words;
  const isMoved = words.startsWith(ADMISSION) || d.s.desk.seen.has(movedKey(pod));
  if (isMoved) d.evidence.push(movedKey(pod));
  return !isMoved && words === ''; // A trial refused for something else tells nothing of labels.
}
const movedKey = ({ meta }: Pod): string => `${ADMISSION}/${meta.uid}`;

/** The claims that its next pod names. */
const nextClaims = ({ name, spec }: Draft, identity: string): readonly string[] =>
  claimTemplateNames(spec).map((template) => claimName(template, name, identity));
/** A claim that its pod mounts is absent or being deleted; without a pod, one that its next pod
 *  names is being deleted, or is absent although the seal names it. Absence is read anew. */
function isClaimGone(d: Draft, m: Bare): boolean {
  const own = m.pod && ownClaims(m.pod);
  return (own ?? nextClaims(d, m.identity)).some((name) => {
    const claim = d.s.claims.get(name);
    if (claim && m.claims.includes(claim)) return isTerminating(claim);
    if (claim) return own !== undefined && isOthers(claim, d.s.cluster);
    const isMeant = own !== undefined || sealOf(m.claims[0]).includes(name);
    return isMeant && isRead(d, m.identity, refOf(CLAIMS, name));
  });
}

/** Somebody deleted the pod: it goes, not by us (`returns`) nor as Kubernetes takes pods off nodes
 *  (DisruptionTarget, unless that came later), from a node that is open. */
function isDeletedByHand(d: Draft, m: Bare): boolean {
  const went = d.s.desk.went.get(m.identity);
  const pod = m.pod ?? (went?.reason === undefined ? went?.pod : undefined);
  if (pod?.meta.deletedMs === undefined || MARK.returns in pod.meta.annotations) return false;
  if (nodeWord(d.s, pod.node) !== 'open') return false;
  return pod.disruption === '' || d.s.desk.seen.has(evidenceKey(d, m, 'PodDeleted'));
}

/** Its pod object is on a silent node. Blind, the taint manager's word stands in for the node's. */
function endByNode(d: Draft, m: Bare): End | undefined {
  const { pod } = m;
  const { nodes } = d.s;
  const isMarked = !nodes && pod?.disruption === 'DeletionByTaintManager';
  if (!pod || isTerminal(pod) || (m.node !== 'silent' && !isMarked)) return undefined;
  const sinceMs = nodes ? nodes.get(pod.node)?.readySinceMs : pod.disruptedMs;
  return endBy(d, m, 'NodeUnreachable', d.spec.liveness.nodeUnreachableSeconds, sinceMs);
}

/** It does not run, and its volumes hold it on nodes none of which is open. */
function endByVolumes(d: Draft, m: Bare): End | undefined {
  const { s } = d;
  const { volumeLostSeconds, nodeGoneSeconds } = d.spec.liveness;
  if (isRunning(m)) return undefined;
  if (m.claims.some((c) => c.phase === 'Lost')) return endBy(d, m, 'VolumeLost', volumeLostSeconds);
  const last = s.desk.went.get(m.identity)?.pod;
  if (!s.nodes && !s.volumesReadable && !m.pod && last?.disruption === 'DeletionByPodGC')
    return endBy(d, m, 'NodeGone', nodeGoneSeconds, last.disruptedMs);
  if (m.node === 'open') return undefined; // Its volumes allow it.
  const allowed = readsVolumes(d, m) ? nodesAllowed(d, m) : undefined;
  if (!allowed) return undefined;
  const words = unique(allowed.map((node) => nodeWord(s, node.meta.name)));
  if (words.join() === 'outOfService') return endBy(d, m, 'NodeOutOfService');
  // Never before another node is open, and counted only from then on: nothing would be won, and
  // nodes that went together come back one after the other.
  if (words.includes('open') || !hasOpenNode(s)) return undefined;
  const ends = allowed.map((node) => endByVolumeNode(d, m, node));
  if (ends.includes(undefined)) return undefined;
  const [latest] = ends.sort((a, b) => (b?.dueInMs ?? 0) - (a?.dueInMs ?? 0));
  return latest ?? endBy(d, m, 'NodeGone', nodeGoneSeconds);
}
/** What one of the nodes that hold it says; undefined: that it waits. */
function endByVolumeNode(d: Draft, m: Bare, node: Node): End | undefined {
  const { nodeUnreachableSeconds, volumeLostSeconds } = d.spec.liveness;
  const word = nodeWord(d.s, node.meta.name);
  if (word === 'outOfService') return endBy(d, m, 'NodeGone', 0);
  if (word === 'silent')
    return endBy(d, m, 'NodeUnreachable', nodeUnreachableSeconds, node.readySinceMs);
  if (word === 'pressed' || d.spec.replacementPolicy === 'WhenVolumesLost') return undefined;
  // Its pod object still shows that it was taken from there.
  const marks = m.pod?.meta.annotations;
  const wasTaken = marks && !isUp(m.pod) && !(MARK.returns in marks);
  return endBy(d, m, 'PodEvicted', word === 'cordoned' && wasTaken ? 0 : volumeLostSeconds);
}

/** What its pod says of itself, by the thresholds of `liveness`; all of them default to never. An
 *  update has changed the pod, or it is on its way out: that is no evidence. */
function endByPod(d: Draft, m: Bare): End | undefined {
  const { pod } = m;
  const { maxRestarts, unreadySeconds, startupSeconds } = d.spec.liveness;
  if (!isUp(pod) || (inPlaceOf(pod) && !isApplied(pod))) return undefined;
  if (maxRestarts > 0 && pod.isDown && pod.restarts - calmRestarts(d, pod) > maxRestarts)
    return endBy(d, m, 'CrashLoop', 0, pod.readySinceMs);
  if (pod.ready) return undefined;
  const seconds = wasReady(pod) ? unreadySeconds : startupSeconds;
  const sinceMs = wasReady(pod) ? pod.readySinceMs : pod.mountedMs;
  if (seconds === 0 || sinceMs === undefined) return undefined;
  return endBy(d, m, wasReady(pod) ? 'Unready' : 'StartupTimeout', seconds, sinceMs);
}
/** Restarts up to the time it last stayed Available for a minute; at first sight, those of a pod
 *  that was Ready once are taken for old ones. */
function calmRestarts({ s, spec, now }: Draft, pod: Pod): number {
  const isCalm = isAvailable(pod, Math.max(spec.minReadySeconds, LIMITS.calmSeconds), now);
  return (isCalm ? undefined : s.desk.calm.get(pod.meta.uid)) ?? (wasReady(pod) ? pod.restarts : 0);
}

/** The one word for a member, as STATES says; but for Withheld, which the brake finds. */
function stateOf(d: Draft, m: Bare): State {
  const { pod } = m;
  const { suspend, minReadySeconds } = d.spec;
  if (m.life !== 'live') return 'Retiring';
  if (!isUp(pod)) return suspend ? 'Suspended' : 'Returning';
  if (inPlaceOf(pod) && !isApplied(pod)) return 'Updating';
  if (isAvailable(pod, minReadySeconds, d.now)) return 'Available';
  if (pod.ready) {
    const limitMs = minReadySeconds * 1000;
    // No longer than the limit, should the clock be behind the one that wrote the transition.
    d.wakes.push(Math.min(limitMs, (pod.readySinceMs ?? d.now) + limitMs - d.now));
    return 'Ready';
  }
  if (wasReady(pod)) return 'Unready';
  if (pod.node !== '') return 'Starting';
  d.wakes.push(pod.meta.createdMs + LIMITS.unplacedMs - d.now); // Then Ready names a way out.
  return 'Pending';
}

// ═══ 5 PLAN · pure ═══════════════════════════════════════════════════════════════════════════════
// From a snapshot to a question or an answer. plan() owns the order, the leaves compute: who is
// there, the brake, ends, places, updates, upkeep. What must be read anew before it is acted upon
// is asked for, and plan() is called again with the answers. Nothing here waits, reads a clock or
// draws by itself.

/** Decides. Idle when the cluster is being deleted (nothing is made after that), paused, or when
 *  its spec cannot work; the members are judged all the same, for the status. */
export function plan(s: Snapshot, now: number, random: () => number): Decision {
  const d = newDraft(s, now, random);
  d.members = membersOf(d).map((m) => {
    return { ...m, end: m.life === 'live' ? endOf(d, m) : undefined, state: stateOf(d, m) };
  });
  d.ends = knownEnds(d);
  d.revisions = revisionsOf(d);
  const withheld = planBrake(d);
  const stalled = s.denied || specProblem(s.cluster);
  const isPaused = s.cluster.meta.annotations[MARK.paused] === 'true';
  const isIdle = isTerminating(s.cluster) || isPaused || stalled !== '';
  if (s.denied !== '') d.wakes.push(LIMITS.retryMaxMs); // No event tells that they may be read.
  if (!isIdle) {
    planEnds(d);
    if (planHistory(d)) {
      planPlaces(d);
      planUpdates(d);
    }
    planUpkeep(d);
    if (d.ask.size > 0) return { ask: [...d.ask.values()] };
  }
  const pods = d.members.flatMap(({ pod }) => pod ?? []);
  const isKnown = (a: Action): boolean =>
    !d.unknown.has(a.identity) && !(a.do === 'Make' && d.unknown.has(a.after ?? ''));
  return {
    members: d.members,
    actions: isIdle ? [] : d.actions.filter(isKnown),
    evidence: d.evidence,
    calm: new Map(pods.map((pod) => [pod.meta.uid, calmRestarts(d, pod)])),
    wakeMs: Math.max(100, Math.min(...d.wakes.filter((ms) => ms > 0), Infinity)),
    revisions: d.revisions,
    behind: behindOf(d),
    stalled,
    blocked: d.blocked,
    withheld,
    notes: d.notes,
  };
}

const PODS = 'pods';
const CLAIMS = 'persistentvolumeclaims';
const REVISIONS = 'controllerrevisions';
/** Adds an action on an object; without a change, it is deleted. */
function act(
  d: Draft,
  verb: Verb,
  because: Reason,
  identity: string,
  object: Pod | Claim | Revision,
  change?: Json,
  resize?: Json,
): void {
  const kind = 'graceSeconds' in object ? PODS : 'volume' in object ? CLAIMS : REVISIONS;
  const about = { verb, because, identity, kind, object } as const;
  d.actions.push(change ? { do: 'Patch', change, resize, ...about } : { do: 'Delete', ...about });
}
const labelled = (labels: Json): Json => ({ metadata: { labels } });
const annotated = (annotations: Json): Json => ({ metadata: { annotations } });
const ownedBy = (ownerReferences: readonly Owner[]): Json => ({ metadata: { ownerReferences } });
const othersOf = ({ meta }: { meta: Meta }, { uid }: Meta): readonly Owner[] =>
  meta.owners.filter((o) => o.uid !== uid);

const readsCluster = (d: Draft): boolean => isRead(d, '', refOf('statefulclusters', d.name));
const podRef = (d: Draft, { identity }: Pick<Member, 'identity'>): Ref =>
  refOf(PODS, podName(d.name, identity));
/** The cluster-wide backoff of refused creations; an edit begins a new one. */
export const makeKey = ({ meta }: StatefulCluster): string => `make/${meta.generation}`;
/** Under this key a refusal of the action is kept. */
export const keyOfAction = (a: Action): string => `${a.verb}/${subjectOf(a)}`;
/** The name that an action is about. */
function subjectOf(a: Action): string {
  if ('object' in a) return a.object.meta.name;
  return a.do === 'Keep' ? a.revision.meta.name : a.identity;
}

/** Why nothing can be created from this spec, as a sentence for `Stalled`, or ''. The CRD's CEL
 *  rules refuse most of it earlier; an object that is older than the rules gets here. */
export function specProblem(cluster: StatefulCluster): string {
  const { selector, template } = cluster.spec;
  if (selectorText(selector) === '') return 'spec.selector is empty: it would select every pod';
  if (!selectorMatches(selector, podLabels(cluster, 'identity', { template, hash: 'hash' })))
    return 'spec.selector does not match the labels that pods get from spec.template';
  return '';
}

// ─── Who is there ────────────────────────────────────────────────────────────────────────────────

/** Groups pods and claims by identity; nothing is judged here. Counting is by controller UID. */
function membersOf(d: Draft): readonly Bare[] {
  const { cluster, revisions, pods } = d.s;
  const ours = [...pods.values()].filter((pod) => isControlledBy(pod.meta, cluster.meta.uid));
  const byIdentity = new Map(ours.map((pod) => [identityOf(pod, d.name), pod]));
  const templatesOf = (some: readonly Revision[]): readonly string[] =>
    unique([...claimTemplateNames(d.spec), ...some.flatMap((r) => r.claimTemplates)]);
  const kept = templatesOf([...revisions.values()]);
  const own = [...d.s.claims.values()].filter((claim) =>
    isOurClaim(claim, cluster, kept, byIdentity.get(labelOf(claim))),
  );
  const groups = Map.groupBy(own, labelOf);
  const all = unique([...byIdentity.keys(), ...groups.keys()])
    .filter((identity) => identity !== '')
    .sort(byAge)
    .map((identity) => memberOf(d, identity, byIdentity.get(identity), groups.get(identity) ?? []));
  // Claims none of which a template of the spec or of a revision in use names make no member.
  const hashes = [...pods.values()].map((pod) => pod.meta.labels[MARK.revision]);
  const shown = new Set([...hashes, cluster.status.currentRevision]);
  const used = templatesOf([...revisions.values()].filter((r) => shown.has(r.hash)));
  const isStray = ({ pod, life, claims }: Bare): boolean =>
    !pod && life === 'live' && !claims.some((claim) => isNamedBy(used, cluster, claim));
  d.strays = all.filter(isStray);
  const names = d.strays.flatMap((m) => m.claims.map((c) => c.meta.name));
  if (names.length > 0) d.notes.push(`no claim template names ${fewNames(names)}`);
  return all.filter((m) => !isStray(m));
}
function memberOf(d: Draft, identity: string, pod: Pod | undefined, all: Claim[]): Bare {
  all.sort((a, b) => a.meta.createdMs - b.meta.createdMs || (a.meta.name < b.meta.name ? -1 : 1));
  // Once it has a pod or a seal, its claims are exactly those that these name.
  const names = pod ? pod.claims : sealOf(all[0]);
  const isWhole = pod === undefined && names.length === 0;
  const claims = all.filter(({ meta }) => isWhole || names.includes(meta.name));
  const first = claims[0];
  // A pod may be seen before its claims, or these may have lost their labels: without them it were
  // ended, and nothing marked.
  const own = pod ? ownClaims(pod) : [];
  const absent = own.filter((name) => !d.s.claims.has(name));
  const isBare = pod !== undefined && isTerminating(pod) && absent.length === own.length;
  const isEnded = first ? claims.every(isMarked) : isBare;
  const isOver = isRead(d, identity, ...absent.map((name) => refOf(CLAIMS, name))) && isEnded;
  const life = isOver ? 'over' : first && isMarked(first) ? 'ending' : 'live';
  const mark = first ? retiredOf(first) : pod && endOfClaimless(d.s, identity, pod);
  return {
    identity,
    pod,
    claims,
    leftovers: all.filter((c) => !claims.includes(c)),
    life,
    retired: life === 'live' ? undefined : mark,
    isBlocked: pod || isOver ? '' : blockerOf(d, identity, all, names),
    index: indexOf(pod, identity) ?? indexOf(first, identity),
    node: nodeWord(d.s, pod?.node ?? ''),
  };
}
/** By its label; an adopted ordinal is its own index. What its pod says comes first. */
function indexOf(of: Pod | Claim | undefined, identity: string): number | undefined {
  const index = of?.meta.labels[MARK.index] ?? (of ? identity : '');
  return /^\d{1,9}$/.test(index) ? Number(index) : undefined;
}
/** A mark with a known Reason; or any, on a claim that a user wants to be restored. */
const isMarked = ({ meta: { annotations } }: Claim): boolean =>
  Object.hasOwn(ENDS, annotations[MARK.retired] ?? '') ||
  (MARK.retired in annotations && annotations[MARK.restore] === 'true');
function retiredOf({ meta }: Claim): Retired | undefined {
  const reason = meta.annotations[MARK.retired];
  if (reason === undefined) return undefined;
  const at = Date.parse(meta.annotations[MARK.retiredAt] ?? '');
  const isTrue = at >= meta.createdMs && at < meta.createdMs + 100 * 365 * 86_400_000;
  const known = Object.hasOwn(ENDS, reason) ? (reason as EndReason) : 'Released';
  return { reason: known, atMs: isTrue ? at : meta.createdMs };
}
/** A member without claims is over when its pod goes; why, this process knows if it did that. */
function endOfClaimless(s: Snapshot, identity: string, pod: Pod): Retired | undefined {
  if (pod.meta.deletedMs === undefined) return undefined;
  const returns = pod.meta.annotations[MARK.returns];
  const announced = returns === 'Suspended' ? 'Suspended' : returns && 'Updated';
  const seen = pod.disruption ? 'PodEvicted' : 'PodDeleted';
  const reason = s.desk.went.get(identity)?.reason ?? (announced || seen);
  return { reason, atMs: pod.meta.deletedMs - pod.graceSeconds * 1000 };
}

/** Whose object stands where its next pod, or a claim of it, would: of a former cluster (it is
 *  waited for), an orphan that may be adopted, or a foreign one. */
function blockerOf(d: Draft, identity: string, all: Claim[], seal: readonly string[]): string {
  const { cluster, claims, pods } = d.s;
  const pod = pods.get(podName(d.name, identity));
  // One that lost our labels is known by the seal alone.
  const isSealed = (c: Claim): boolean =>
    seal.includes(c.meta.name) && MARK.claims in c.meta.annotations && !isOthers(c, cluster);
  const next = nextClaims(d, identity).flatMap((name) => claims.get(name) ?? []);
  const blocker = pod ?? next.find((claim) => !all.includes(claim) && !isSealed(claim));
  if (!blocker) return '';
  if (isOfFormer(blocker.meta, cluster.meta)) return `former ${blocker.meta.name}`;
  return `${pod && isOrphan(d.s, pod) ? 'orphan' : 'foreign'} ${blocker.meta.name}`;
}
/** A pod that nobody controls, and that a member may take up. */
const isOrphan = (s: Snapshot, pod: Pod): boolean =>
  !hasController(pod.meta) && !isTerminating(pod) && isSelected(s, pod);
/** Identities of which there are only objects of a former cluster of this name: they hold a place
 *  until garbage collection takes these or frees them; a claim that is going waits for its pod. */
function formerOf(d: Draft): number {
  const { cluster, pods, claims } = d.s;
  const kept = [...pods.values(), ...[...claims.values()].filter((c) => !isTerminating(c))];
  const former = kept.filter(({ meta }) => isOfFormer(meta, cluster.meta)).map(labelOf);
  const ids = unique(former).filter((id) => d.members.every((m) => m.identity !== id));
  if (ids.length > 0) d.notes.push(`what a former ${d.name} left is waited for: ${fewNames(ids)}`);
  return ids.length;
}
const isLive = (m: Pick<Member, 'life'>): boolean => m.life === 'live';
const isReady = (m: Member): boolean => m.state === 'Ready' || m.state === 'Available';
const nameOf = (m: Pick<Member, 'identity'>): string => m.identity;
/** Live members that stay. */
const stayingOf = (d: Draft): readonly Member[] =>
  d.members.filter((m) => isLive(m) && !d.ending.has(m.identity));

// ─── The brake ───────────────────────────────────────────────────────────────────────────────────

const isJudgement = (reason: string): boolean => ENDS[reason as EndReason]?.kind === 'judgement';

/** Finds who of the judged is withheld; says who waits, why, and each way out that really works. A
 *  judged member goes while out ≤ limit, so no outage makes a cluster give itself up, and the only
 *  copy is, by default, never given up by a judgement. */
function planBrake(d: Draft): string {
  const judged = d.members.filter((m) => m.end?.dueInMs === 0 && m.end.kind === 'judgement');
  const limit = maxReplacementsOf(d.spec);
  const out = judged.length > 0 ? outOf(d, judged) : 0;
  const why = new Map<Member, string>();
  for (const m of judged) {
    // Nothing was written to its claims: it is let go without brake.
    const isFree = m.claims.length > 0 && m.claims.every(isNeverBound);
    const braked = out > limit && !isFree ? `${out} are out, and at most ${limit} may be` : '';
    const words = braked || heirProblem(d, m);
    if (words) why.set(m, words);
  }
  if (why.size === 0) return '';
  d.members = d.members.map((m) => (why.has(m) ? { ...m, state: 'Withheld' } : m));
  const who = fewNames([...why.keys()].map((m) => `${m.identity} ${m.end?.reason}`));
  return [
    `${why.size} of ${d.spec.replicas} members are judged and wait (${who})`,
    fewNames(unique(why.values())),
    'they go on when their nodes or volumes are back, or spec.liveness.maxReplacements is raised',
    `a member ends at once when its pod or claim is annotated ${MARK.replace}=true`,
  ].join('; ');
}
/** Each counted once: who is judged, who is or can only be on nodes that are silent or gone, also
 *  when its pod lost its owner; the places and the successors of judged ends, not well yet. */
function outOf(d: Draft, judged: readonly Member[]): number {
  const live = d.members.filter(isLive);
  const isAway = (m: Member): boolean => {
    if (isDown(nodeWord(d.s, d.s.pods.get(podName(d.name, m.identity))?.node ?? ''))) return true;
    if (isRunning(m) || m.node === 'open') return false;
    const allowed = readsVolumes(d, m) ? nodesAllowed(d, m) : undefined;
    return allowed?.every((node) => isDown(nodeWord(d.s, node.meta.name))) === true;
  };
  const isHeir = ({ pod, claims, identity }: Member): boolean => {
    if (!isJudgement(reasonIn((pod ?? claims[0])?.meta.annotations[MARK.replaces]))) return false;
    return pod ? !wasReady(pod) : d.now - birthMs(identity) < LIMITS.earlyEndMs;
  };
  const out = live.filter((m) => judged.includes(m) || isAway(m) || isHeir(m)).length;
  const awaited = endsToFill(d).filter((end) => isJudgement(reasonIn(end))).length;
  return out + Math.min(Math.max(0, d.spec.replicas - live.length), awaited);
}
/** The brake's limit: `liveness.maxReplacements`, or max(1, ⌊(replicas−1)/2⌋), 0 at 1 replica. */
export function maxReplacementsOf({ replicas, liveness: { maxReplacements } }: Spec): number {
  const usual = replicas <= 1 ? 0 : Math.max(1, Math.floor((replicas - 1) / 2));
  return maxReplacements === undefined ? usual : scaledValue(maxReplacements, replicas, 'down');
}
/** Why a successor could not be made now, or ''. Its claims and pod are tried first. */
function heirProblem(d: Draft, m: Member): string {
  const { s } = d;
  const refused = waiting(s.desk.backoff, makeKey(s.cluster), s.uptime);
  const hold = refused ? `no successor can be made: ${refused.message}` : birthHold(d);
  if (hold !== '') return hold;
  // F29: during an update, what its pod says speaks against its template, if none was ever Ready
  // with that: the update goes on, or is undone, and that heals it.
  const { update, current } = d.revisions;
  const isProof = ({ pod }: Member): boolean =>
    pod !== undefined && wasReady(pod) && revisionIn({ pod }) === revisionIn(m);
  const isOfPod = m.end !== undefined && ENDS[m.end.reason].early === 'template';
  if (isOfPod && update.hash !== current.hash && !d.members.some(isProof))
    return `no member was ever Ready at revision ${revisionIn(m)}`;
  const words = trialOf(d, nextRevision(d, 1)(), true, isUp(m.pod) ? m.pod : undefined);
  return words ? `no successor can be made: ${words}` : '';
}
/** A dry-run of a new pod of a revision; for a birth, of its claims, too. */
function trialRef(trial: Revision, isBirth: boolean): Ref {
  const withClaims = isBirth && trial.claimTemplates.length > 0;
  const name = withClaims ? `${trial.hash} with claims` : trial.hash;
  return { kind: 'trials', name, trial, withClaims };
}
/** What the API server says to it: '' if it takes all, undefined if it was not asked in this pass.
 *  A full quota of pods is no objection where an old pod, which goes first, counts in it and is of
 *  the same size. */
function trialOf(d: Draft, revision: Revision, withClaims: boolean, old?: Pod): string | undefined {
  const ref = trialRef(revision, withClaims);
  const refused = waiting(d.s.desk.backoff, keyOfRef(ref), d.s.uptime);
  if (!refused) isRead(d, '', ref);
  const words = refused?.message ?? d.s.answers.get(keyOfRef(ref));
  if (!old || !/pods? "[^"]*" is forbidden: exceeded quota/.test(words ?? '')) return words;
  const paths = [...changesFrom(d, revisionIn({ pod: old }), revision).keys()];
  return paths.some((path) => path.includes('.resources.')) ? words : '';
}

// ─── Ends ────────────────────────────────────────────────────────────────────────────────────────

/** Ends who is due and not withheld, and finishes what a crash left half-marked. */
function planEnds(d: Draft): void {
  const end = (m: Member, reason: EndReason, isSafe = true): void => {
    if (isGuarded(d, m, reason) && isSafe) planEnd(d, m, reason);
  };
  for (const m of d.members) {
    if (m.retired) planEnd(d, m, m.retired.reason);
    const isDue = m.end?.dueInMs === 0 && m.state !== 'Withheld';
    if (isDue && m.end.reason !== 'ReplaceRequested') end(m, m.end.reason);
  }
  // I2: of two whose pods have one index the younger ends; without a pod it gets another.
  const holders = holdersOf(d);
  for (const m of d.spec.ordinals ? stayingOf(d) : [])
    if (m.pod && m.index !== undefined && holders.get(m.index) !== m) end(m, 'IndexTaken');
  const served = requestsServed(d);
  const isSafe = isReliedOn(d, served);
  for (const m of served) end(m, 'ReplaceRequested', isSafe || m.state !== 'Available');
}
/** I10: one guard for all ends that somebody's will or a judgement makes. Nobody ends before what
 *  that rests on was read anew in this pass, so a stale cache gives no member up: the cluster, its
 *  pod, its nodes, its claims. A scale-in rests on the cluster alone, an update also on the pod. */
function isGuarded(d: Draft, m: Member, reason: EndReason): boolean {
  const allowed = isRunning(m) ? [] : (nodesAllowed(d, m) ?? []).map((node) => node.meta.name);
  const names = unique([lastNodeOf(d.s, m), ...allowed.slice(0, LIMITS.readsMax)]);
  const nodes = d.s.nodes ? names.filter(Boolean) : [];
  const claims = ['VolumeLost', 'ClaimGone'].includes(reason) ? m.claims : [];
  // A pod that was seen to go, or to end, may be gone by now, as if it had vanished unseen.
  const isLeft = m.pod && !isUp(m.pod) && (!isJudgement(reason) || m.claims.length === 0);
  const refs = [
    ...(isLeft ? [] : [podRef(d, m)]),
    ...nodes.map((name) => refOf('nodes', name)),
    ...claims.map((c) => refOf(CLAIMS, c.meta.name)),
  ];
  const reads = [isRead(d, m.identity, ...refs), readsCluster(d)];
  return !reads.includes(false); // Asked all at once: there are three rounds.
}
/** Marks every claim, oldest first, and then deletes the pod, so that a crash leaves no member
 *  ended and unmarked. What is done of it already is not done again. A pod that its user took out
 *  of the selector is let go of, and never deleted. */
function planEnd(d: Draft, m: Member, because: EndReason): void {
  const { pod, identity } = m;
  if (isLive(m)) d.ending.set(identity, because);
  for (const claim of isWantedBack(m) ? [] : [...m.claims, ...m.leftovers])
    if (!isMarked(claim))
      act(d, 'retire', because, identity, claim, retirement(d, m, claim, because));
  if (!pod || isTerminating(pod)) return;
  if (because !== 'Released') act(d, 'end', because, identity, pod);
  else act(d, 'release', because, identity, pod, ownedBy(othersOf(pod, d.s.cluster.meta)));
}
/** The mark of an end, with the policy of its moment; what a former cluster kept, or a member that
 *  has no claims left over, is kept. Retained data outlives the cluster: its owner goes. */
function retirement(d: Draft, m: Member, claim: Claim, because: EndReason): Json {
  const { meta } = d.s.cluster;
  const moment = ENDS[because].policy;
  const isOlder = claim.meta.createdMs < meta.createdMs && !m.pod;
  const isKept = moment === 'Retain' || isOlder || m.claims.length === 0;
  const policy = isKept ? 'Retain' : d.spec.persistentVolumeClaimRetentionPolicy[moment];
  const annotations = {
    [MARK.retired]: because,
    [MARK.retiredAt]: timeText(d.now),
    [MARK.retiredPolicy]: policy,
    [MARK.replace]: null,
    [MARK.restore]: null,
  };
  const free = policy === 'Retain' && { ownerReferences: othersOf(claim, meta) };
  return { metadata: { labels: { [MARK.retired]: 'true' }, annotations, ...free } };
}

/** I5: at most so many Available members are taken down by us. */
function spareOf(d: Draft, least = 0): number {
  const available = stayingOf(d).filter((m) => m.state === 'Available').length;
  return Math.max(0, available - (d.spec.replicas - Math.max(least, maxUnavailableOf(d.spec))));
}
/** Members that a user asked to replace and that may go now: those that are not Available at once,
 *  the others while enough stay Available (I5), oldest request first. */
function requestsServed(d: Draft): readonly Member[] {
  const asked = stayingOf(d).filter((m) => m.end?.reason === 'ReplaceRequested');
  const seenAt = (m: Member): number => d.s.desk.seen.get(m.end?.evidence ?? '') ?? d.s.uptime;
  const up = asked.filter((m) => m.state === 'Available').sort((a, b) => seenAt(a) - seenAt(b));
  return [...asked.filter((m) => m.state !== 'Available'), ...up.slice(0, spareOf(d, 1))];
}
/** I5 rests on the others being Available: that is read anew before Available ones go. */
function isReliedOn(d: Draft, going: readonly Member[]): boolean {
  if (!going.some((m) => m.state === 'Available')) return true;
  const others = d.members.filter((m) => m.state === 'Available' && !going.includes(m));
  return isRead(d, '', ...others.slice(0, LIMITS.readsMax).map((m) => podRef(d, m)));
}

// ─── Places ──────────────────────────────────────────────────────────────────────────────────────

type Known = Retired & { readonly identity: string; readonly isClaimless?: boolean };
/** Ends of earlier passes: by the marks, or by the pods that this process saw go: what it did, or,
 *  of a member without claims, what that pod shows. */
function knownEnds({ s, members }: Pick<Draft, 's' | 'members'>): readonly Known[] {
  const here = new Set(members.map(nameOf));
  const went = [...s.desk.went].flatMap(([identity, { pod, reason, atMs }]) => {
    const isClaimless = pod !== undefined && ownClaims(pod).length === 0;
    const shown = isClaimless ? endOfClaimless(s, identity, pod) : undefined;
    const end = reason ? { reason, atMs } : shown;
    return end && !here.has(identity) ? [{ ...end, identity, isClaimless }] : [];
  });
  const marked = members.flatMap(({ identity, claims, retired }) =>
    retired ? [{ ...retired, identity, isClaimless: claims.length === 0 }] : [],
  );
  return [...went, ...marked];
}
/** Ends that the next births may name, newest first, as `enge.me/replaces` records them: for
 *  10 min, or as long as members cannot be made at all, and unless an object names them since. */
function endsToFill(d: Draft): readonly string[] {
  const { s } = d;
  const isHeld = s.desk.backoff.has(makeKey(s.cluster));
  const all = [...s.pods.values(), ...s.claims.values()];
  const heirs = Map.groupBy(all, ({ meta }) => meta.annotations[MARK.replaces]?.split(' ')[0]);
  const isFilled = ({ identity, atMs }: Known): boolean =>
    heirs.get(identity)?.some(({ meta }) => meta.createdMs >= atMs - 1000) === true;
  const now = [...d.ending].map(([identity, reason]) => ({ identity, reason, atMs: d.now }));
  return [...d.ends, ...now]
    .filter(({ reason }) => ENDS[reason].heir && !(reason === 'Updated' && maxSurgeOf(d.spec) > 0))
    .filter((end) => (isHeld || d.now - end.atMs <= LIMITS.earlyEndMs) && !isFilled(end))
    .sort((a, b) => b.atMs - a.atMs || byAge(b.identity, a.identity))
    .map(({ identity, reason }) => `${identity} ${reason}`);
}
/** A broken template must not burn through identities: 10 s doubling to 5 min from the second end
 *  that speaks against it within 10 min of a birth, or from more other ends that nobody asked for
 *  than max(3, replicas). Ends of one second are one. Node and volume evidence never counts.
 *  Why nobody is born now, or ''. */
function birthHold(d: Draft): string {
  const { now, spec } = d;
  const isEarly = ({ identity, atMs }: Known): boolean =>
    atMs - birthMs(identity) <= LIMITS.earlyEndMs &&
    now - atMs <= LIMITS.earlyEndMs &&
    atMs <= now + 1000; // Written while a clock was ahead: no hold may last that long.
  const kindOf = ({ reason, isClaimless }: Known): string =>
    ENDS[reason].early === 'claimless' && isClaimless ? 'unasked' : ENDS[reason].early;
  let [times, last] = [0, 0];
  for (const [kind, most] of Object.entries({ template: 1, unasked: Math.max(3, spec.replicas) })) {
    const early = d.ends.filter((end) => isEarly(end) && kindOf(end) === kind);
    const seconds = unique(early.map((end) => Math.floor(end.atMs / 1000)));
    if (seconds.length <= most) continue;
    times += seconds.length - most;
    last = Math.max(last, ...seconds);
  }
  const waitMs = last * 1000 + doubled(times) - now;
  if (times === 0 || waitMs <= 0) return '';
  d.wakes.push(waitMs);
  return `new members keep ending soon after birth; until ${timeText(now + waitMs)}`;
}

/** Those that a new one must be younger than. One far ahead of its object is forged. */
function identitiesOf(s: Snapshot, members: readonly Member[]): readonly string[] {
  const went = [...s.desk.went].map(([identity, { pod }]) => ({ identity, pod, claims: [] }));
  const isTrue = ({
    identity,
    claims,
    pod,
  }: Pick<Member, 'identity' | 'claims' | 'pod'>): boolean =>
    [pod, ...claims].some((o) => o && birthMs(identity) <= o.meta.createdMs + LIMITS.futureMaxMs);
  const known = [...members, ...went].filter(isTrue).map(nameOf);
  return [...known, s.cluster.status.newestIdentity ?? ''];
}

/** Places. I4: pods of live members never exceed replicas + surge. The surplus is scaled in;
 *  whoever is between two pods returns; what is left is for restores and births. */
function planPlaces(d: Draft): void {
  const { s, spec } = d;
  d.indices = holdersOf(d);
  const live = stayingOf(d);
  const most = Math.min(maxSurgeOf(spec), behindOf(d));
  // Until a trial says that one more can be made, nobody is made, and nobody taken away.
  const isTried = most === 0 || passesTrial(d, outdatedOf(d).slice(0, 1));
  const surge = isTried ? most : Math.max(0, Math.min(most, live.length - spec.replicas));
  const wanted = spec.replicas + surge;
  const free = Math.max(0, wanted - live.length - formerOf(d));
  const places = free - planAdoption(d, live, free);
  if (live.length > wanted) return planScaleIn(d, live, live.length - wanted);
  if (spec.suspend) return planSuspension(d, live, places);
  const refused = waiting(s.desk.backoff, makeKey(s.cluster), s.uptime);
  if (refused) return void d.notes.push(`creations wait: ${refused.message}`);
  const next = nextRevision(d);
  const returns = live.filter((m) => returnsNow(d, m)).map((m) => backOf(d, m, next(m)));
  const restored = planRestores(d, places);
  const room = places - restored;
  const births = room > 0 ? planBirths(d, live.length + restored, room, next) : [];
  d.actions.push(...[...returns, ...births].slice(0, LIMITS.batchMax));
}

/** How many of these may be brought up, updated or taken away now. OrderedReady does one at a time,
 *  and waits for all others that are under way. */
function turnsNow(d: Draft, candidates: readonly Member[] = []): number {
  if (d.spec.podManagementPolicy !== 'OrderedReady') return Infinity;
  const others = d.members.filter((m) => !candidates.includes(m));
  const isBusy = others.some((m) => isUnderWay(m, d.now)) || d.actions.some((a) => a.do === 'Make');
  if (isBusy) d.wakes.push(LIMITS.leavingMaxMs);
  return isBusy ? 0 : 1;
}
/** Is it coming up, changing or going? Not if it is due, has no open node, or takes too long. */
function isUnderWay({ pod, claims, end, state }: Member, now: number): boolean {
  if (end && (end.dueInMs === 0 || /^(Node|Volume|PodEvicted)/.test(end.reason))) return false;
  if (!pod) return state === 'Returning' && claims.every(isNeverBound);
  if (pod.meta.deletedMs !== undefined) return now < pod.meta.deletedMs + LIMITS.leavingMaxMs;
  const isYoung = now - pod.meta.createdMs < LIMITS.bringUpMaxMs;
  if (state === 'Pending' || state === 'Starting') return isYoung;
  if (pod.trouble || /^(Infeasible|Deferred)/.test(pod.resize)) return false; // For ever, perhaps.
  return state === 'Ready' || state === 'Updating';
}

/** Does its next pod come now? Its name is the lock: the API server refuses it while the former pod
 *  object exists. One that is terminal goes first; a pod that ends again and again comes slowly. */
function returnsNow(d: Draft, m: Member): boolean {
  const { pod, identity } = m;
  if (pod && isTerminal(pod) && m.state !== 'Withheld') leaveAndReturn(d, m, 'Returned');
  if (pod) return false; // A claim of it that is being deleted ended it, see isClaimGone.
  if (m.isBlocked.startsWith('foreign'))
    d.blocked ||= `${m.isBlocked.slice(8)} stands in the way of ${identity}`;
  return m.isBlocked === '' && !waiting(d.s.desk.backoff, `return/${identity}`, d.s.uptime);
}
/** The next pod of a member. A birth that was cut short is finished as the birth that it was. */
function backOf(d: Draft, m: Member, revision: Revision): Make {
  if (m.claims.every(isNeverBound))
    return makeOf(d, m, revision, 'ScaledOut', m.claims[0]?.meta.annotations[MARK.replaces]);
  const last = d.s.desk.went.get(m.identity)?.pod;
  const isAnnounced = last?.meta.annotations[MARK.returns] === 'Recreated';
  return makeOf(d, m, revision, isAnnounced ? 'Recreated' : 'Returned');
}
/** A pod to make, with the claims that its member has; those that it lacks are made before. */
function makeOf(
  d: Draft,
  m: Pick<Member, 'identity' | 'claims' | 'leftovers' | 'index'>,
  revision: Revision,
  usual: Reason,
  replaces?: string,
): Make {
  const { identity } = m;
  const names = claimTemplateNames(d.spec).filter((t) => revision.claimTemplates.includes(t));
  const own = [...m.claims, ...m.leftovers].map((c) => c.meta.name);
  const index = takeIndex(d, m);
  for (const claim of index === m.index ? [] : m.claims)
    act(d, 'seal', 'Sealed', identity, claim, labelled(indexLabel(index)));
  return {
    do: 'Make',
    verb: 'make',
    identity,
    revision,
    claims: names.filter((t) => !own.includes(claimName(t, d.name, identity))),
    index,
    because: (reasonIn(replaces) as Reason | '') || usual,
    replaces,
  };
}
/** Deletes a pod whose member comes back: the mark on it goes first, so that nobody takes the
 *  deletion for an end. A member without claims ends instead. */
function leaveAndReturn(d: Draft, m: Member, why: 'Recreated' | 'Suspended' | 'Returned'): void {
  const { pod, identity } = m;
  if (!pod || isTerminating(pod) || !readsCluster(d)) return;
  const because = ownClaims(pod).length > 0 ? why : why === 'Recreated' ? 'Updated' : 'Suspended';
  if (pod.meta.annotations[MARK.returns] !== why)
    act(d, 'announce', because, identity, pod, annotated({ [MARK.returns]: why }));
  act(d, 'end', because, identity, pod);
}

/** New members. The first of them take the places of who ends in this pass, and wait for that; each
 *  names the newest end that no member replaces yet. */
function planBirths(d: Draft, live: number, places: number, next: () => Revision): readonly Make[] {
  const hold = birthHold(d);
  if (hold !== '') d.notes.push(`creations wait: ${hold}`);
  const most = hold ? 0 : Math.min(places, LIMITS.batchMax, indicesLeft(d), turnsNow(d));
  if (most <= 0) return [];
  const ends = endsToFill(d);
  const filled = ends.map((end) => end.split(' ')[0] ?? '').filter((id) => d.ending.has(id));
  const after = unique([...filled, ...d.ending.keys()]); // Who fills a place waits for its end.
  return allocate(most, identitiesOf(d.s, d.members), d.now, d.random).map((identity, i) => {
    const fresh = { identity, claims: [], leftovers: [], index: undefined };
    const usual = live + i < d.spec.replicas ? 'ScaledOut' : 'Updated';
    return { ...makeOf(d, fresh, next(), usual, ends[i]), after: after[i] };
  });
}

const isWantedBack = ({ claims }: Member): boolean =>
  claims.some((c) => isMarked(c) && c.meta.annotations[MARK.restore] === 'true');
/** Retired claims that a user wants back, oldest identity first, while there are places; none that
 *  lost a claim, which would come back empty. All of them get the wish first, then each loses its
 *  marks, the oldest last: so it is finished, never undone. Returns how many places that takes. */
function planRestores(d: Draft, places: number): number {
  const wanted = d.members.filter((m) => m.retired && isWantedBack(m));
  const isWhole = (m: Member): boolean => !m.claims.some(isTerminating) && !isClaimGone(d, m);
  const isFree = (m: Member): boolean => !d.s.pods.has(podName(d.name, m.identity)) && isWhole(m);
  const free = wanted.filter(isFree).slice(0, places);
  const later = wanted.filter((m) => !free.includes(m)).map(nameOf);
  if (later.length > 0)
    d.notes.push(`restored once there is room, its pod gone, no claim lost: ${fewNames(later)}`);
  for (const m of free) {
    if (!isRead(d, m.identity, podRef(d, m)) || !readsCluster(d)) continue;
    const marked = m.claims.filter(isMarked).reverse();
    const shy = marked.filter((c) => c.meta.annotations[MARK.restore] !== 'true');
    const change = shy.length > 0 ? annotated({ [MARK.restore]: 'true' }) : restoration(d, m);
    for (const claim of shy.length > 0 ? shy : marked)
      act(d, 'restore', 'Restored', m.identity, claim, change);
  }
  return free.length; // Of whom there was no answer keeps the place.
}
function restoration(d: Draft, m: Member): Json {
  const keys = [MARK.retired, MARK.retiredAt, MARK.retiredPolicy, MARK.restore];
  const cleared = Object.fromEntries(keys.map((key) => [key, null]));
  const names = m.claims.map((c) => c.meta.name).sort();
  const labels = { [MARK.retired]: null, [MARK.index]: null, ...indexLabel(takeIndex(d, m)) };
  return { metadata: { labels, annotations: { ...cleared, [MARK.claims]: names.join(' ') } } };
}

/** An orphan that mounts exactly the claims of a live member without a pod, but for those that go
 *  or are gone, is that member's; where none has claims, one without is adopted while a place is
 *  free. Returns how many places that takes. */
function planAdoption(d: Draft, live: readonly Member[], places: number): number {
  let taken = 0;
  for (const pod of [...d.s.pods.values()].filter((one) => isOrphan(d.s, one))) {
    const identity = identityOf(pod, d.name);
    const m = live.find((one) => one.identity === identity);
    const stays = (claim?: Claim): boolean => claim !== undefined && !isTerminating(claim);
    const names = m?.claims.filter(stays).map((c) => c.meta.name) ?? [];
    const lost = nextClaims(d, identity).filter((name) => !stays(d.s.claims.get(name)));
    const mounted = ownClaims(pod).filter((name) => !lost.includes(name));
    const isWhole = m && !m.pod && names.sort().join() === mounted.sort().join();
    const isNamed = identity !== '' && pod.meta.labels[MARK.identity] === identity;
    const isBare = ownClaims(pod).length + d.spec.volumeClaimTemplates.length === 0;
    const isNew = !m && isUp(pod) && isBare && isNamed && taken < places;
    if (!(isWhole || isNew) || !readsCluster(d)) continue;
    if (isNew) taken++;
    if (isNew) d.indices.set(indexOf(pod, identity), undefined);
    act(d, 'adopt', 'Adopted', identity, pod, ownedBy([...pod.meta.owners, ownerOf(d.s.cluster)]));
  }
  return taken;
}
/** Pods go, identities and claims stay. One whose claim is being deleted could not come back. */
function planSuspension(d: Draft, live: readonly Member[], places: number): void {
  planRestores(d, places);
  const open = live.filter((m) => m.pod && !isTerminating(m.pod) && !m.claims.some(isTerminating));
  for (const m of open.reverse().slice(0, turnsNow(d, open))) leaveAndReturn(d, m, 'Suspended');
}

/** Who holds each index: live members that stay, the oldest first; any other until it is over and
 *  its pod object is gone, or on a node that is down (no fencing: it may run there still). */
function holdersOf(d: Draft): Draft['indices'] {
  const live = stayingOf(d);
  const others = d.members.filter((m) => !live.includes(m) && d.spec.ordinals);
  // I2: a node that came back unheard may run its pod still, so a dead one is read anew.
  const isWanted = live.length < d.spec.replicas + maxSurgeOf(d.spec);
  const isDead = ({ node, pod }: Member): boolean =>
    isWanted && isDown(node) && isRead(d, '', refOf('nodes', pod?.node ?? ''));
  const left = others.filter((m) => m.life !== 'over' || (m.pod && !isDead(m)));
  const found: Draft['indices'] = new Map();
  for (const m of [...live.filter((one) => one.pod), ...live, ...left])
    if (!found.has(m.index)) found.set(m.index, m);
  return found;
}
/** The member's own index, if it has one that no other holds, or the smallest that is free. */
function takeIndex(d: Draft, m: Pick<Member, 'index'>): number | undefined {
  const { ordinals } = d.spec;
  const own = m.index;
  if (own !== undefined && d.indices.get(own) === m) return own;
  let index = own === undefined || d.indices.has(own) ? ordinals?.start : own;
  while (index !== undefined && d.indices.has(index)) index++;
  d.indices.set(index, undefined);
  return index;
}
/** At most so many births find an index. While one below start + replicas belongs only to an
 *  identity that ends or is over, it is waited for. */
function indicesLeft({ spec: { ordinals, replicas }, indices, ending }: Draft): number {
  if (!ordinals) return Infinity;
  const range = Array.from({ length: replicas }, (_, i) => ordinals.start + i);
  const holders = range.map((i) => indices.get(i));
  const isAwaited = holders.some((m) => m && (!isLive(m) || ending.has(m.identity)));
  return isAwaited ? range.filter((i) => !indices.has(i)).length : Infinity;
}

/** Ends the surplus, what is worth least first; a stale cache must not shrink a cluster, so the
 *  wish to is read anew. */
function planScaleIn(d: Draft, live: readonly Member[], surplus: number): void {
  // Who has an orphan to be adopted is not chosen as one without a pod, which would stay behind.
  if (d.actions.some((a) => a.verb === 'adopt')) return;
  if (!readsCluster(d)) return;
  const most = Math.min(surplus, turnsNow(d, live));
  for (const m of scaleInOrder(live, d.revisions.update.hash).slice(0, most))
    planEnd(d, m, 'ScaledIn');
}
/** The order of scale-in, as DESIGN.md section 6 has it: what is worth least goes first. */
export function scaleInOrder(all: readonly Member[], updateRevision: string): readonly Member[] {
  const perNode = Map.groupBy(all, ({ pod }) => pod?.node ?? '');
  const areClaimless = all.every(({ claims }) => claims.length === 0);
  const ranks = (m: Member): readonly number[] => {
    const { pod, claims, state, end } = m;
    // Its present pod is its first: it names whom it replaces, or nothing was bound or sealed yet.
    const isUnsealed = claims.every((c) => sealOf(c).length === 0 && !isBound(c));
    const isFirst = isUnsealed || (pod && MARK.replaces in pod.meta.annotations) === true;
    const cost = Number.parseInt(pod?.meta.annotations[MARK.deletionCost] ?? '0', 10);
    return [
      areClaimless || claims.length > 0 ? 1 : 0, // 0: nothing is lost with it; it may be forged.
      end?.kind === 'judgement' && end.dueInMs === 0 ? 0 : 1,
      claims.length > 0 && claims.every(isNeverBound) ? 0 : 1,
      isFirst && !(pod && wasReady(pod)) ? 0 : 1,
      pod?.ready ? 1 : 0,
      state === 'Available' ? 1 : 0,
      Number.isNaN(cost) ? 0 : cost,
      pod?.meta.labels[MARK.revision] === updateRevision ? 1 : 0,
      -(perNode.get(pod?.node ?? '')?.length ?? 0),
    ];
  };
  const ranked = all.map((m) => ({ m, rank: ranks(m) }));
  ranked.sort((a, b) => {
    const differences = a.rank.map((value, i) => value - (b.rank[i] ?? 0));
    return differences.find(Boolean) ?? byAge(b.m.identity, a.m.identity);
  });
  return ranked.map(({ m }) => m);
}

// ─── Revisions ───────────────────────────────────────────────────────────────────────────────────

/** The update revision, and the one that most of the other live members have. Without a pod that
 *  shows one, the status says; it moves to the update revision when all live members have that. */
function revisionsOf(d: Draft): Revisions {
  const { cluster, revisions } = d.s;
  const { update } = d.revisions;
  const goals = d.members.filter(isLive).map((m) => goalOf(m.pod));
  const countOf = ({ hash }: Revision): number => goals.filter((goal) => goal === hash).length;
  const isThrough = goals.length > 0 && goals.every((hash) => hash === update.hash);
  const stated = isThrough || d.spec.replicas === 0 ? '' : cluster.status.currentRevision;
  const older = [...revisions.values()]
    .filter((x) => isControlledBy(x.meta, cluster.meta.uid) && x.hash !== update.hash)
    .sort((a, b) => countOf(b) - countOf(a) || b.number - a.number);
  const shown = older.find((x) => countOf(x) > 0 || x.hash === stated) ?? update;
  // A pod of an older template may mount a claim template that came after it.
  const claimTemplates = unique([...shown.claimTemplates, ...claimTemplateNames(d.spec)]);
  return { ...d.revisions, current: { ...shown, claimTemplates } };
}
/** The revision that the pod has, or is being changed to, or ''. */
const goalOf = (pod: Pod | undefined): string =>
  pod ? (inPlaceOf(pod)?.revision ?? pod.meta.labels[MARK.revision] ?? '') : '';
/** The bare hash that the member's pod carries, or ''. */
const revisionIn = ({ pod }: Pick<Member, 'pod'>): string => pod?.meta.labels[MARK.revision] ?? '';
/** Does the template that its pod was made of, or is being changed to, differ by hash? */
const isOutdated = (m: Member, { hash }: Revision): boolean =>
  isLive(m) && isUp(m.pod) && goalOf(m.pod) !== hash;
/** Members that stay at their revision: a percentage rounds up. */
const partitionOf = (spec: Spec): number =>
  scaledValue(spec.updateStrategy.rollingUpdate.partition, spec.replicas, 'up');
/** Outdated members that stay and that no partition keeps, oldest first. One that runs on a claim
 *  that is being deleted is left alone: without its pod, the claim would be gone. */
function outdatedOf(d: Draft): readonly Member[] {
  const open = d.spec.suspend ? [] : stayingOf(d).slice(partitionOf(d.spec));
  return open.filter((m) => isOutdated(m, d.revisions.update) && !runsOnGoingClaim(m));
}
const runsOnGoingClaim = (m: Member): boolean => isReady(m) && m.claims.some(isTerminating);
/** Members that an update has yet to reach. */
const behindOf = (d: Draft): number => (isOnDelete(d) ? 0 : outdatedOf(d).length);
const isOnDelete = ({ spec }: Draft): boolean => spec.updateStrategy.type === 'OnDelete';

/** The revision of the next pod of a member, or, without one, of the next birth, once so many have
 *  left: the current one for the oldest `partition` members, while updates are paused, and while
 *  the API server refuses the update revision; else that. Nobody is made with a claim template
 *  that is gone, unless its own claim is there. */
function nextRevision(d: Draft, leaving = 0): (m?: Member) => Revision {
  const { current, update } = d.revisions;
  const { paused } = d.spec.updateStrategy.rollingUpdate;
  const trials = [false, true].map((all) => d.s.desk.backoff.get(keyOfRef(trialRef(update, all))));
  const isRefused = trials.some((one) => one && !one.message.includes('exceeded quota'));
  const order = stayingOf(d).map(nameOf);
  const names = claimTemplateNames(d.spec);
  const isThere = (name: string, m?: Member): boolean =>
    names.includes(name) || (!!m && d.s.claims.has(claimName(name, d.name, m.identity)));
  let born = order.length - leaving;
  return (m) => {
    const rank = m ? order.indexOf(m.identity) : born++;
    const isKept = paused || isRefused || rank < partitionOf(d.spec);
    return isKept && current.claimTemplates.every((t) => isThere(t, m)) ? current : update;
  };
}

/** The history of templates: the update revision is made before a pod names it, orphans are
 *  adopted, and the oldest that no pod uses go beyond the limit. True when the update revision is
 *  there, and no orphan has yet to be adopted. */
function planHistory(d: Draft): boolean {
  const { cluster, revisions, desk } = d.s;
  const { update, current } = d.revisions;
  const all = [...revisions.values()];
  const orphans = all.filter(
    ({ meta }) => !hasController(meta) && meta.labels[MARK.cluster] === d.name,
  );
  for (const orphan of orphans) {
    const change = ownedBy([...orphan.meta.owners, ownerOf(cluster)]);
    if (readsCluster(d)) act(d, 'record', 'Adopted', '', orphan, change);
  }
  // One that may not be adopted stops nothing: it is tried again, and is no part of the history.
  if (orphans.some(({ meta }) => !desk.backoff.has(`record/${meta.name}`))) return false;
  if (update.meta.uid === '') {
    const about = { verb: 'record', because: 'Revised', identity: '' } as const;
    // Made for a cluster that is gone, it would be collected and made anew without end.
    const isSafe = [isRead(d, '', refOf(REVISIONS, update.meta.name)), readsCluster(d)];
    if (!isSafe.includes(false)) d.actions.push({ do: 'Keep', revision: update, ...about });
    return false;
  }
  const ours = all.filter((x) => isControlledBy(x.meta, cluster.meta.uid));
  ours.sort((a, b) => b.number - a.number);
  // An undo makes an old template the newest again. The cause may be annotated afterwards.
  const newest = ours[0]?.number ?? 0;
  const revision = update.number < newest ? newest + 1 : update.number;
  const was = update.meta.annotations[MARK.changeCause];
  const cause = cluster.meta.annotations[MARK.changeCause] ?? was;
  const change = { ...annotated({ [MARK.changeCause]: cause }), revision };
  if (revision !== update.number || cause !== was) act(d, 'record', 'Revised', '', update, change);
  const named = d.members.flatMap((m) => [revisionIn(m), goalOf(m.pod)]);
  const used = [update.hash, current.hash, ...named];
  const spare = ours.filter((x) => !used.includes(x.hash)).slice(d.spec.revisionHistoryLimit);
  for (const one of spare.reverse()) act(d, 'forget', 'Revised', '', one);
  return true;
}

// ─── Updates ─────────────────────────────────────────────────────────────────────────────────────

/** Rounded down as Deployment does, and at least 1 without surge: nothing could ever be updated or
 *  given up else. */
export function maxUnavailableOf(spec: Spec): number {
  const { maxUnavailable } = spec.updateStrategy.rollingUpdate;
  return Math.max(maxSurgeOf(spec) > 0 ? 0 : 1, scaledValue(maxUnavailable, spec.replicas, 'down'));
}
/** Rounded up as Deployment does; only Replace makes new members beside the old ones. */
export function maxSurgeOf(spec: Spec): number {
  const { type, rollingUpdate: r } = spec.updateStrategy;
  if (type === 'OnDelete' || r.podUpdatePolicy !== 'Replace' || r.paused) return 0;
  return scaledValue(r.maxSurge, spec.replicas, 'up');
}

/** Brings outdated members to the update revision, within the budget and after a trial, even where
 *  only labels differ: admission may change the image of whatever is patched. */
function planUpdates(d: Draft): void {
  const { spec } = d;
  const { maxUnavailable, paused } = spec.updateStrategy.rollingUpdate;
  if (scaledValue(maxUnavailable, spec.replicas, 'down') < maxUnavailableOf(spec))
    d.notes.push('maxUnavailable comes to 0 without surge, so 1 is used');
  if (paused || d.actions.some((a) => a.because === 'ScaledIn')) return;
  // Not one whose node speaks against it; what its pod says may be healed by a new template.
  const isSound = ({ node, end }: Member): boolean =>
    !isDown(node) && (end?.dueInMs !== 0 || ENDS[end.reason].early === 'template');
  const isOpen = (m: Member): boolean =>
    isSound(m) && (!isOnDelete(d) || changesFrom(d, revisionIn(m)).size === 0);
  const chosen = chooseOutdated(d, outdatedOf(d).filter(isOpen));
  if (chosen.length === 0) return;
  // Asked all at once: what the change is, and whether it may come.
  const isAllowed = [isReliedOn(d, chosen), passesTrial(d, chosen), readsCluster(d)];
  for (const m of chosen) isRead(d, m.identity, podRef(d, m));
  if (isAllowed.includes(false)) return;
  for (const m of chosen) updateMember(d, m);
}

/** Who is updated now. Those that are not Ready cost nothing, so a broken update heals; of the
 *  Ready ones the youngest, while enough others are Available (I5). Under Replace even those that
 *  are not Ready cost an identity: no more than maxUnavailable + maxSurge are under way at once. */
function chooseOutdated(d: Draft, open: readonly Member[]): readonly Member[] {
  const { spec, revisions } = d;
  const isFresh = (m: Member): boolean =>
    !isOutdated(m, revisions.update) && m.state !== 'Available';
  const births = d.actions.filter((a) => a.do === 'Make').length;
  const underWay = stayingOf(d).filter(isFresh).length + births;
  const most = Math.max(1, maxUnavailableOf(spec) + maxSurgeOf(spec));
  const isReplace = spec.updateStrategy.rollingUpdate.podUpdatePolicy === 'Replace';
  const room = isReplace ? Math.max(0, most - underWay) : Infinity;
  const youngestFirst = [...open].reverse();
  const well = youngestFirst.filter(isReady).slice(0, spareOf(d));
  const chosen = [...youngestFirst.filter((m) => !isReady(m)), ...well];
  return chosen.slice(0, Math.min(room, turnsNow(d, open)));
}

/** One member, as its policy says. What cannot be done in place falls back, or is reported. */
function updateMember(d: Draft, m: Member): void {
  const { s, spec } = d;
  const { pod, identity } = m;
  const policy = spec.updateStrategy.rollingUpdate.podUpdatePolicy;
  if (!pod || d.unknown.has(identity)) return;
  const lacks = lacksOf(d, pod);
  const other = [...lacks].find(([path, value]) => !isInPlace(d, path, value));
  const refused = waiting(s.desk.backoff, `update/${pod.meta.name}`, s.uptime)?.message ?? '';
  const isPossible = policy.startsWith('InPlace') && !other && refused === '';
  if (lacks.size === 0 || isPossible) changeInPlace(d, pod, lacks);
  else if (policy === 'InPlaceOnly' || refused.includes("node didn't have enough")) {
    // A resize that its node has no room for waits: the volume holds the pod there.
    const words = `podUpdatePolicy is InPlaceOnly, and ${other?.[0]} cannot change in place`;
    d.blocked = refused || words;
  } else if (policy === 'Replace') planEnd(d, m, 'Updated');
  else if (canComeBack(d, m)) leaveAndReturn(d, m, 'Recreated');
  else d.blocked ||= `${identity} could not come back: its node, volumes or claims are not open`;
}
/** Recreate touches only a member that can come back. */
function canComeBack(d: Draft, m: Member): boolean {
  if (m.claims.some(isTerminating) || !readsVolumes(d, m)) return false;
  if (!m.pod?.ready && m.node !== 'open' && m.node !== 'none') return false;
  const isOpen = (node: Node): boolean => nodeWord(d.s, node.meta.name) === 'open';
  return nodesAllowed(d, m)?.some(isOpen) ?? hasOpenNode(d.s);
}
/** Would the API server take what this step makes? */
function passesTrial(d: Draft, chosen: readonly Member[]): boolean {
  const { update } = d.revisions;
  const isReplace = d.spec.updateStrategy.rollingUpdate.podUpdatePolicy === 'Replace';
  const lacksClaims = ({ pod, identity }: Member): boolean =>
    update.claimTemplates.some((t) => !pod?.claims.includes(claimName(t, d.name, identity)));
  const withClaims = isReplace || chosen.some(lacksClaims);
  const words = trialOf(d, update, withClaims, isReplace ? undefined : chosen[0]?.pod);
  if (words?.startsWith(NO_ANSWER)) d.notes.push(`the trial of ${update.hash} failed: ${words}`);
  else if (words) d.blocked ||= words;
  return words === '';
}

// ─── What changes, and how ───────────────────────────────────────────────────────────────────────

/** Path → a text, a number, a truth, or a list as JSON. */
type Leaves = ReadonlyMap<string, unknown>;
/** The leaves of an object; what is null or empty says nothing. A list of named things goes by
 *  name, as in a strategic merge, with the names as a leaf where their order means something; any
 *  other list is a leaf. */
export function leavesOf(value: unknown, path = '', found = new Map<string, unknown>()): Leaves {
  if (typeof value !== 'object' || value === null) return found.set(path, value ?? undefined);
  const names = Array.isArray(value) ? value.map((item: Json | null) => item?.['name']) : [];
  if (names.includes(undefined) || new Set(names).size < names.length)
    return found.set(path, canonicalJson(value));
  if (names.length > 0 && /(ontainers|env)$/.test(path)) found.set(path, names.join());
  for (const [key, part] of Object.entries(value))
    leavesOf(part, [path, names[Number(key)] ?? key].filter(Boolean).join('.'), found);
  return found;
}
const LABELS = 'metadata.labels.';
const ANNOTATIONS = 'metadata.annotations.';
const IN_PLACE = /^spec\.containers\.[^.]+\.(image|resources\.(requests|limits)\.(cpu|memory))$/;

/** Where the update revision differs from another, and what it says there; undefined: nothing. Of
 *  an unknown one, everything may. */
function changesFrom({ s, revisions }: Draft, hash: string, to = revisions.update): Leaves {
  const known = [...s.revisions.values()].find((r) => r.hash === hash);
  const wholeOf = ({ template }: Revision): Json => {
    const annotations = withoutOurs(template.metadata?.annotations);
    const metadata = { labels: templateLabels(s.cluster, template), annotations };
    return { metadata, spec: template.spec };
  };
  const [before, after] = [leavesOf(known && wholeOf(known)), leavesOf(wholeOf(to))];
  const paths = unique([...before.keys(), ...after.keys()]);
  const changed = paths.filter((path) => before.get(path) !== after.get(path));
  return new Map(changed.map((path) => [path, after.get(path)]));
}
/** What the living pod lacks of the update revision: where that differs from the revision it was
 *  made of, and from the one it is just being changed to, and the pod is not as a new one would be.
 *  The trial showed that one, with the API server's defaults and what admission makes of it. */
function lacksOf(d: Draft, pod: Pod): Leaves {
  const { bodies } = d.s;
  const trials = [false, true].map((all) => bodies.get(trialRef(d.revisions.update, all).name));
  const hashes = unique([revisionIn({ pod }), goalOf(pod)]);
  const changes = new Map(hashes.flatMap((hash) => [...changesFrom(d, hash)]));
  const fresh = trials.find(Boolean);
  const [has, wanted] = [leavesOf(bodies.get(pod.meta.name)), fresh ? leavesOf(fresh) : changes];
  return new Map([...changes].filter(([path]) => has.get(path) !== wanted.get(path)));
}
/** Can this be changed on a living pod, without losing what its containers read at their start? A
 *  changed annotation restarts (`restartedAt`, `checksum/config`), except under InPlaceOnly. */
function isInPlace({ spec, revisions }: Draft, path: string, value: unknown): boolean {
  const { podUpdatePolicy } = spec.updateStrategy.rollingUpdate;
  if (path.startsWith(ANNOTATIONS)) return podUpdatePolicy === 'InPlaceOnly';
  if (!path.startsWith(LABELS)) return value !== undefined && IN_PLACE.test(path);
  const uses = [`metadata.labels['${path.slice(LABELS.length)}']`, '"metadata.labels"'];
  const read = JSON.stringify(revisions.update.template.spec);
  return !uses.some((text) => read.includes(text));
}

/** The change in place; `enge.me/in-place` says what each container was before. */
function changeInPlace(d: Draft, pod: Pod, lacks: Leaves): void {
  const { hash, template } = d.revisions.update;
  const under = (start: string): Json => {
    const own = [...lacks].filter(([path]) => path.startsWith(start));
    return Object.fromEntries(
      own.map(([path, value]) => [path.slice(start.length), value ?? null]),
    );
  };
  const lacking = (field: 'image' | 'resources'): readonly Json[] =>
    (template.spec?.containers ?? [])
      .filter(({ name }) => Object.keys(under(`spec.containers.${name}.${field}`)).length > 0)
      .map((c) => ({ name: c.name, [field]: c[field] }));
  const [images, sizes] = [lacking('image'), lacking('resources')];
  // Of a container that has yet to restart for an earlier update, it stays as before that.
  const older = inPlaceOf(pod)?.before ?? {};
  const before = Object.entries(pod.containers).map(([name, now]) => {
    return [name, older[name]?.[0] === now[0] ? older[name] : now];
  });
  const mark = JSON.stringify({ revision: hash, before: Object.fromEntries(before) });
  const annotations = { ...under(ANNOTATIONS), [MARK.inPlace]: mark };
  const metadata = { labels: under(LABELS), annotations };
  const change = { metadata, ...(images.length > 0 && { spec: { containers: images } }) };
  const resize = sizes.length > 0 ? { spec: { containers: sizes } } : undefined;
  const because = lacks.size > 0 ? 'Updated' : 'Revised';
  act(d, 'update', because, identityOf(pod, d.name), pod, change, resize);
}

// ─── Upkeep ──────────────────────────────────────────────────────────────────────────────────────

/** Labels, owners, growth, seals, what an update left to do; frees the claims of who is over. */
function planUpkeep(d: Draft): void {
  for (const m of d.members) {
    planLabels(d, m);
    if (m.life === 'over') planFreeing(d, m);
  }
  for (const m of [...stayingOf(d), ...d.strays]) {
    const claims = [...m.claims, ...m.leftovers].filter((c) => !isTerminating(c) && !isMarked(c));
    for (const claim of claims) planClaim(d, m, claim);
    planSeal(d, m);
    planFinish(d, m);
  }
}
/** I3: only of an identity that is over, once its pod object is gone (read anew), if it was marked
 *  with policy Delete, or was never bound, so that nothing was written to it. */
function planFreeing(d: Draft, m: Member): void {
  const isFree = (c: Claim): boolean =>
    isMarked(c) && (c.meta.annotations[MARK.retiredPolicy] === 'Delete' || isNeverBound(c));
  const free = [...m.claims, ...m.leftovers].filter((c) => isFree(c) && !isTerminating(c));
  const pod = d.s.pods.get(podName(d.name, m.identity));
  const isMounted = free.some(({ meta }) => pod?.claims.includes(meta.name));
  if (isMounted || (pod && isControlledBy(pod.meta, d.s.cluster.meta.uid))) return;
  if (free.length === 0 || isWantedBack(m) || !isRead(d, m.identity, podRef(d, m))) return;
  for (const claim of free) act(d, 'free', m.retired?.reason ?? 'Released', m.identity, claim);
}
/** Labels of ours that its pod, or a claim that this mounts, lost are put back; on the pod also
 *  those of the selector, once admission takes them no more. */
function planLabels(d: Draft, { identity, pod }: Member): void {
  if (!pod) return;
  const isIn = isSelected(d.s, pod);
  const isBack = !isIn && d.evidence.includes(movedKey(pod)) && !d.blocked.startsWith(ADMISSION);
  const ours = ourLabels(d.name, identity);
  const all = { ...(isBack && d.spec.selector.matchLabels), ...ours };
  const mounted = ownClaims(pod).flatMap((name) => d.s.claims.get(name) ?? []);
  const own = mounted.filter((c) => MARK.claims in c.meta.annotations && !isOthers(c, d.s.cluster));
  for (const object of isBack || isIn ? [pod, ...own] : own) {
    const labels = object === pod ? all : ours;
    const lacks = Object.entries(labels).some(([key, value]) => object.meta.labels[key] !== value);
    if (lacks) act(d, 'relabel', 'Relabelled', identity, object, labelled(labels));
  }
}
/** The claims of its identity that a pod mounts. */
const ownClaims = ({ claims, meta }: Pod): readonly string[] =>
  claims.filter((name) => name.endsWith(`-${meta.name}`));
/** The owner reference is `whenDeleted: Delete`; a larger request grows what is bound. */
function planClaim(d: Draft, { identity }: Bare, claim: Claim): void {
  const { cluster } = d.s;
  const wantsOwner = d.spec.persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete';
  const isOwned = isControlledBy(claim.meta, cluster.meta.uid);
  // I10: what names a cluster that is gone is deleted by garbage collection.
  if (isOwned !== wantsOwner && (isOwned || readsCluster(d))) {
    const owners = [...othersOf(claim, cluster.meta), ...(wantsOwner ? [ownerOf(cluster)] : [])];
    act(d, 'own', 'Owned', identity, claim, ownedBy(owners));
  }
  const storage = templateOfClaim(cluster, identity, claim)?.spec?.resources?.requests?.['storage'];
  const change = { spec: { resources: { requests: { storage } } } };
  if (isBound(claim) && quantity(storage ?? '') > quantity(claim.request))
    act(d, 'expand', 'Expanded', identity, claim, change);
}
/** The seal: of an identity of two or more claims, once its pod has been scheduled, the names of
 *  those that it mounts on each, so that one that is lost later is missed, and no other counts. */
function planSeal(d: Draft, { identity, claims, leftovers, pod }: Bare): void {
  const names = claims.map((c) => c.meta.name).sort();
  const all = [...claims, ...leftovers];
  const isSealed = all.some((c) => sealOf(c).length > 0);
  if (!pod || pod.node === '' || isTerminating(pod) || (all.length < 2 && !isSealed)) return;
  if (ownClaims(pod).some((name) => !names.includes(name))) return;
  for (const claim of all.filter((c) => sealOf(c).join() !== names.join()))
    act(d, 'seal', 'Sealed', identity, claim, annotated({ [MARK.claims]: names.join(' ') }));
}
/** What an update leaves to do: the revision label is written last, once the pod is as it should be
 *  in place; the mark of a deletion that was not done after all is taken off. */
function planFinish(d: Draft, { identity, pod }: Bare): void {
  if (!isUp(pod)) return;
  const inPlace = inPlaceOf(pod);
  if (inPlace && pod.resize.startsWith('Infeasible'))
    d.blocked ||= `${identity} cannot be resized on its node (${pod.resize})`;
  if (d.actions.some((a) => 'object' in a && a.object === pod)) return;
  if (inPlace && isApplied(pod)) {
    const labels = { [MARK.revision]: inPlace.revision };
    const metadata = { labels, annotations: { [MARK.inPlace]: null } };
    act(d, 'relabel', 'Revised', identity, pod, { metadata });
  }
  if (MARK.returns in pod.meta.annotations)
    act(d, 'relabel', 'Revised', identity, pod, annotated({ [MARK.returns]: null }));
}

const templateOfClaim = (cluster: StatefulCluster, identity: string, claim: Claim) =>
  cluster.spec.volumeClaimTemplates.find(
    (t) => claimName(t.metadata?.name ?? '', cluster.meta.name, identity) === claim.meta.name,
  );
/** What its template says that a living claim can no longer follow: a field name, or ''. */
export function claimDrift(cluster: StatefulCluster, identity: string, claim: Claim): string {
  const spec = templateOfClaim(cluster, identity, claim)?.spec;
  if (!spec) return 'template';
  const { resources, volumeName: _, ...fixed } = spec;
  if (quantity(resources?.requests?.['storage'] ?? '') < quantity(claim.request))
    return 'resources';
  const differs = ([field, value]: [string, unknown]): boolean =>
    Boolean(value) && canonicalJson(value) !== canonicalJson(claim.spec[field]);
  return Object.entries(fixed).find(differs)?.[0] ?? '';
}

// ─── What is kept in mind ────────────────────────────────────────────────────────────────────────

/** What this process keeps in mind after a pass over `s`; `desk` is what it has learned meanwhile.
 *  Evidence that is gone is forgotten, so that it counts anew when it returns. */
export function remember(s: Snapshot, p: Plan, desk: Desk): Desk {
  const { uptime, answers } = s;
  const went = new Map(desk.went);
  for (const { identity, pod, life, claims, retired, end } of p.members) {
    const known = went.get(identity);
    // Whose pod went and was not judged PodDeleted never is: its node may open, or suspend end.
    if (!pod && known?.pod && known === s.desk.went.get(identity) && end?.reason !== 'PodDeleted') {
      const meta = { ...known.pod.meta, deletedMs: undefined };
      went.set(identity, { ...known, pod: { ...known.pod, meta } });
    }
    const isLater = pod && pod.meta.createdMs > (known?.atMs ?? 0); // It was restored.
    const isAnother = known?.reason ? isLater : pod?.meta.uid !== known?.pod?.meta.uid;
    const isPlaced = pod && (pod.node !== '' || known?.reason) && !isTerminating(pod);
    if (life === 'live' && isPlaced && isAnother) went.delete(identity);
    if (retired && !known?.reason && claims.length === 0) went.set(identity, { pod, ...retired });
  }
  const live = new Set(p.members.filter(isLive).map(nameOf));
  const newest = Math.max(0, ...[...went.values()].map((one) => one.atMs));
  for (const [identity, { atMs }] of went)
    if (!live.has(identity) && newest - atMs > LIMITS.earlyEndMs) went.delete(identity);
  const backoff = new Map(desk.backoff);
  for (const [key, message] of answers) {
    if (!key.startsWith('trials/') || message.startsWith(NO_ANSWER)) continue;
    // What passes once, with its claims or without, is refused no more.
    const [revision = ''] = key.split(' ');
    for (const known of backoff.keys()) if (known.startsWith(revision)) backoff.delete(known);
    if (message !== '')
      backoff.set(key, { times: 1, untilUptime: uptime + LIMITS.trialMs, message });
  }
  const isMaking = p.actions.some((a) => a.do === 'Make');
  for (const [key, { untilUptime }] of backoff) {
    const [kind, name = ''] = key.split('/');
    const isOther =
      kind === 'return' ? !live.has(name) : kind === 'make' && key !== makeKey(s.cluster);
    // Long ago; or nothing is to be made any more, so what was refused is no news.
    const isOld = uptime - untilUptime >= (kind === 'make' && !isMaking ? 0 : LIMITS.earlyEndMs);
    if (isOther || isOld) backoff.delete(key);
  }
  const seen = new Map(p.evidence.map((key) => [key, desk.seen.get(key) ?? uptime]));
  return { seen, went, calm: p.calm, backoff };
}

// ═══ 6 STATUS · pure ═════════════════════════════════════════════════════════════════════════════
// What people and tools see: status and conditions, recomputed whole every time. Nothing is merged
// by hand, so no condition stays True after recovery. Only counters and lineage that no object
// carries any more are taken over from the status before.

const conditionOf = ({ status }: StatefulCluster, type: string): Condition | undefined =>
  status.conditions?.find((c) => c.type === type);
const trueIn = (c: StatefulCluster, type: string): Condition | undefined =>
  conditionOf(c, type)?.status === 'True' ? conditionOf(c, type) : undefined;
/** Why a member is as it is, in one word or in the words of whoever said so, and since when. */
function causeOf(m: Member): Partial<Pick<End, 'sinceMs'>> & { readonly reason: string } {
  const { end, life, retired, state, isBlocked, pod } = m;
  if (end?.dueInMs === 0) return end;
  if (life !== 'live' && retired) return { reason: retired.reason, sinceMs: retired.atMs };
  const why = isBlocked || pod?.trouble || pod?.resize || (end && `${end.reason} soon`);
  return { reason: state === 'Available' ? '' : (why ?? '') };
}
/** One line of `status.members`. */
function memberStatus(s: Snapshot, { update }: Revisions, m: Member) {
  const { pod, identity, claims, index } = m;
  const { reason, sinceMs = pod?.readySinceMs ?? pod?.meta.createdMs } = causeOf(m);
  return {
    identity,
    pod: pod?.meta.name ?? '',
    node: lastNodeOf(s, m),
    ...(index !== undefined && s.cluster.spec.ordinals && { index }),
    revision: pod ? revisionIn(m) : update.hash,
    health: m.state,
    reason,
    ...(sinceMs !== undefined && { since: timeText(sinceMs) }),
    claims: claims.map((c) => c.meta.name).sort(),
  };
}

/** Who replaces whom (identity and Reason), oldest first: two processes that overlapped may both
 *  have made one. */
function heirsOf({ pods, claims }: Snapshot): readonly (readonly [heir: string, of: string])[] {
  const pairs = [...pods.values(), ...claims.values()].map(({ meta: { labels, annotations } }) => {
    return [labels[MARK.identity] ?? '', annotations[MARK.replaces] ?? ''] as const;
  });
  return [...new Map(pairs.filter(([, of]) => of !== ''))].sort(([a], [b]) => byAge(a, b));
}
/** The last retired identities, newest first, each with its successor and the last words of its
 *  pod; of those of which nothing tells any more, the status before. */
function retiredStatus(s: Snapshot, { members }: Plan): readonly RetiredStatus[] {
  const before = s.cluster.status.retired ?? [];
  const heirs = heirsOf(s);
  const ends = [...knownEnds({ s, members })];
  ends.sort((a, b) => b.atMs - a.atMs || byAge(b.identity, a.identity));
  const known = new Set([...ends, ...members].map(nameOf));
  const marked = ends.slice(0, LIMITS.statusRetiredMax).map(({ identity, reason, atMs }) => {
    const earlier = before.find((r) => r.identity === identity && r.reason === reason);
    const m = members.find((one) => one.identity === identity);
    const message = (m?.pod ?? s.desk.went.get(identity)?.pod)?.lastWords || earlier?.message;
    const claims = m ? [...m.claims, ...m.leftovers].map((c) => c.meta.name).sort() : [];
    // One that was restored has the heir of its former end, too.
    const isOfEnd = (heir: string): boolean => birthMs(heir) + LIMITS.heirLeadMs > atMs;
    const heir = heirs.find(([one, of]) => of === `${identity} ${reason}` && isOfEnd(one));
    const replacedBy = heir?.[0] ?? earlier?.replacedBy ?? '';
    const at = earlier?.at ?? timeText(atMs);
    return { identity, reason, ...(message && { message }), at, claims, replacedBy };
  });
  const others = before.filter((r) => !known.has(r.identity));
  const all = [...marked, ...others.map((r) => ({ ...r, claims: [] }))];
  all.sort((a, b) => Date.parse(b.at) - Date.parse(a.at) || byAge(b.identity, a.identity));
  return all.slice(0, LIMITS.statusRetiredMax);
}

/** What living claims cannot follow: a field, or an expansion, in the API server's words. */
function driftOf({ cluster, desk }: Snapshot, { members }: Plan): string {
  const names = members.filter(isLive).flatMap(({ identity, claims }) =>
    claims.flatMap((claim) => {
      const { name } = claim.meta;
      const refused = desk.backoff.get(`expand/${name}`)?.message;
      const why = refused || claimDrift(cluster, identity, claim);
      return why ? [`${name} (${why})`] : [];
    }),
  );
  const rule = 'spec.volumeClaimTemplates now holds for new identities only';
  return names.length > 0 ? `${rule}; these claims differ: ${fewNames(names)}` : '';
}

/** What holds the cluster up, or what a user of a settled one should know. */
function readyMessage(s: Snapshot, p: Plan, available: number, now: number): string {
  const { spec } = s.cluster;
  const live = p.members.filter(isLive);
  const away = live.filter((m) => m.state !== 'Available');
  const outdated = live.filter((m) => isOutdated(m, p.revisions.update)).length;
  const wordsFor = (m: Member): string => {
    const scheduler = m.state === 'Pending' ? m.pod?.lastWords : '';
    const why = [causeOf(m).reason, scheduler].filter(Boolean).join(': ');
    return `${m.identity} ${m.state}${why && ` (${why})`}`;
  };
  const isStranded = ({ state, pod }: Member): boolean =>
    state === 'Pending' && now - (pod?.meta.createdMs ?? now) >= LIMITS.unplacedMs;
  // What cannot be made stands in Stalled; a refused trial may be no objection.
  const refused = [...s.desk.backoff].filter(
    ([key, b]) => b.message && !/^(make|trials)/.test(key),
  );
  const lists: readonly (readonly [string, readonly string[]])[] = [
    ['waiting for', away.map(wordsFor)],
    [`${MARK.replace}=true is the way out for`, away.filter(isStranded).map(nameOf)],
    ['refused:', refused.map(([key, { message }]) => `${key.split('/')[0]}: ${message}`)],
    ['runs on a claim that is being deleted:', live.filter(runsOnGoingClaim).map(nameOf)],
  ];
  const parts = [
    `${available} of ${spec.replicas} members are available`,
    spec.suspend && 'all are suspended until spec.suspend is false',
    outdated > 0 && `${outdated} members are not at revision ${p.revisions.update.hash}`,
    outdated > p.behind && `the partition, OnDelete or a going claim keeps ${outdated - p.behind}`,
    ...lists.map(([words, names]) => names.length > 0 && `${words} ${fewNames(names)}`),
    ...unique(p.notes),
    !s.nodes && 'nodes cannot be read, so every node counts as open',
    !s.volumesReadable && 'volumes cannot be read, so they count as bound to their node',
  ];
  return parts.filter(Boolean).join('; ');
}

/** Why the cluster is done or not, in one word. */
function phaseOf({ meta, spec }: StatefulCluster, p: Plan, trouble: string, available: number) {
  const { paused } = spec.updateStrategy.rollingUpdate;
  const isFull = p.members.filter(isLive).length === spec.replicas && available === spec.replicas;
  if (trouble) return 'Stalled';
  if (isFull && p.behind === 0 && !spec.suspend) return 'AllAvailable';
  if (meta.annotations[MARK.paused] === 'true') return 'Paused';
  if (spec.suspend) return 'Suspended';
  if (p.behind === 0 || (paused && available < spec.replicas)) return 'MembersUnavailable';
  return paused ? 'UpdatePaused' : 'Updating';
}
function conditionsOf(s: Snapshot, p: Plan, available: number, now: number): readonly Condition[] {
  const { spec } = s.cluster;
  const troubles: readonly (readonly [string, string])[] = [
    ['Forbidden', s.denied],
    ['InvalidSpec', p.stalled],
    ['Refused', s.desk.backoff.get(makeKey(s.cluster))?.message ?? ''],
    ['UpdateBlocked', p.blocked],
  ];
  const [why, trouble] = troubles.find(([, words]) => words !== '') ?? ['', ''];
  const phase = phaseOf(s.cluster, p, trouble, available);
  const isDone = phase === 'AllAvailable';
  const isIdle = ['Stalled', 'Paused', 'Suspended', 'UpdatePaused'].includes(phase);
  const drift = driftOf(s, p);
  const message = readyMessage(s, p, available, now);
  // Where all may be unavailable, none is not enough.
  const least = Math.max(Math.min(1, spec.replicas), spec.replicas - maxUnavailableOf(spec));
  // Type, truth, the reason when True, the reason when False, message.
  const rows: readonly (readonly [string, boolean, string, string, string])[] = [
    ['Available', available >= least, 'MinimumAvailable', 'MinimumUnavailable', message],
    ['Progressing', !isIdle, phase, phase, message],
    ['Ready', isDone, phase, phase, message],
    ['Reconciling', !isDone && !isIdle, phase, phase, message],
    ['Stalled', trouble !== '', why, 'NotStalled', trouble],
    ['ReplacementWithheld', p.withheld !== '', 'BudgetSpent', 'NoneWithheld', p.withheld],
    ['ClaimTemplatesDrifted', drift !== '', 'Drifted', 'InStep', drift],
  ];
  return rows.map(([type, truth, yes, no, text]) => {
    const [status, reason] = truth ? (['True', yes] as const) : (['False', no] as const);
    return setCondition(s.cluster, { type, status, reason, message: text }, now);
  });
}

/** The whole status, of what a pass saw: what it did is seen by the next one. Times come from
 *  objects or the status before, only a change is dated by `now`: at rest it stays as it is. */
export function statusOf(s: Snapshot, p: Plan, now: number): Status {
  const { spec, meta, status: before } = s.cluster;
  const live = p.members.filter(isLive);
  const { update, current, collisionCount } = p.revisions;
  const count = ({ hash }: Revision): number => live.filter((m) => revisionIn(m) === hash).length;
  const available = live.filter((m) => m.state === 'Available').length;
  const newestIdentity = youngest(identitiesOf(s, p.members));
  // Each is counted once: in the pass that raises the newest identity to it.
  const isNew = ([identity]: readonly [string, string]): boolean =>
    byAge(identity, before.newestIdentity ?? '') > 0 && byAge(identity, newestIdentity) <= 0;
  const shown = p.members.filter((m) => isLive(m) || m.pod);
  const isWell = (m: Member): number => (m.state === 'Available' ? 1 : 0);
  shown.sort((a, b) => isWell(a) - isWell(b) || byAge(a.identity, b.identity));
  const retired = p.members.flatMap((m) => [...m.claims, ...m.leftovers]).filter(isMarked);
  return {
    observedGeneration: meta.generation,
    replicas: live.length,
    readyReplicas: live.filter(isReady).length,
    availableReplicas: available,
    currentReplicas: count(current),
    updatedReplicas: count(update),
    currentRevision: current.hash,
    updateRevision: update.hash,
    collisionCount,
    selector: selectorText(spec.selector),
    replacements: (before.replacements ?? 0) + heirsOf(s).filter(isNew).length,
    retiredClaims: retired.filter((c) => !isTerminating(c)).length,
    newestIdentity,
    members: shown.slice(0, LIMITS.statusMembersMax).map((m) => memberStatus(s, p.revisions, m)),
    retired: retiredStatus(s, p),
    conditions: conditionsOf(s, p, available, now),
  };
}

// ═══ THE LINE ════════════════════════════════════════════════════════════════════════════════════
// Everything above decides and touches nothing.
// Everything below obeys and decides nothing.

// ═══ 7 WORLD · effects ═══════════════════════════════════════════════════════════════════════════
// The one door to time, chance and the network. Production implements it in CLIENT and CLI, the
// tests implement it with virtual time and faults; the operator between them is the same code.

/** One request to the API server; `path` is absolute and carries the query string. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string; // Default application/json; a PATCH names its type.
  readonly timeoutMs?: number; // Deadline, default BOUNDS.requestMs.
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
  readonly object: Raw;
}
type Hear = (event: WatchEvent) => void;
/** What the operator needs of the outside. */
export interface World {
  now(): number; // Wall clock, milliseconds since 1970.
  uptime(): number; // Monotonic clock in milliseconds; never steps.
  sleep(ms: number, signal?: AbortSignal): Promise<void>; // Ends early when aborted, never rejects.
  random(): number; // At least 0, below 1.
  /** Rejects only when there is no answer: network, deadline. */
  send(request: ApiRequest): Promise<ApiResponse>;
  /** Calls `on` for each event in order. Resolves when the stream ends (status 200), or with
   *  another answer; rejects when the connection breaks. */
  watch(path: string, on: Hear, signal: AbortSignal): Promise<ApiResponse>;
  log(level: Level, message: string, fields?: Readonly<Record<string, unknown>>): void;
}
export type Level = 'debug' | 'info' | 'warn' | 'error';

/** What bounds the work: requests, passes, the Lease. */
export const BOUNDS = {
  passMs: 1_000, // A pass makes no further batch after this, and its cluster is queued last.
  askMax: 3, // Rounds of reads in one pass.
  recheckMs: 1_000, // The cache is looked at again for own writes, should no event come.
  requestMs: 15_000,
  askMs: 3_000, // Of one of them: what the others said must not grow old meanwhile.
  oldMs: 30_000, // A pass does nothing more after this: what it read is old.
  annotationMax: 16_384, // Characters of one of our annotations.
  quietMs: 90_000, // A watch without a byte for so long is broken: bookmarks come every minute.
  requestsMax: 50, // In flight, of the whole process, beside the Lease and the watches.
  credentialsMs: 60_000, // For so long they are not read again.
  pluginMs: 10_000, // Of a kubeconfig's plugin for credentials.
  stopMaxMs: 3_500, // From SIGTERM until what is in flight is abandoned; then the Lease goes.
  releaseMaxMs: 800,
  leaseMs: 15_000, // A Lease that nobody was seen to renew for so long is free.
  renewMaxMs: 10_000, // A holder that could not renew for so long does not lead any more.
  leaseRetryMs: 2_000,
  silenceMaxMs: 900_000, // A watch that gave no sign for so long: the process is not well.
  probersMax: 64, // Connections to the probes.
  syncMaxMs: 60_000,
  restMaxMs: 1_000, // A cluster rests a millisecond for each of its pods, but no longer than this.
} as const;

// ═══ 8 CLIENT · effects ══════════════════════════════════════════════════════════════════════════
// Kubeconfig or in-cluster credentials → `send` and `watch` on HTTP/1.1 connections that undici
// keeps alive. Not HTTP/2: in undici 8.12.4 a GOAWAY beside an open watch hangs every new request
// until that watch ends, and its pings never find a dead connection.

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
/** There is no such object. A 404 that does not say so comes from a proxy, and is no answer. */
const isGone = (error: unknown) => isRefusal(error) && error.reason === 'NotFound';
const isTaken = (error: unknown) => error instanceof ApiError && error.reason === 'AlreadyExists';

/** What an error says; Node has nothing to say of several addresses that all failed. */
export function wordsOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return wordsOf(error.errors[0]);
  if (!(error instanceof Error)) return String(error);
  return error.name === 'TimeoutError' ? 'no answer in time' : error.message;
}
function apiErrorOf({ status, headers, body }: ApiResponse): ApiError {
  const { reason = '', message = `an answer ${status} that no API server gives` } = dictOf(body);
  if (status < 400) return new ApiError(0, 'NoAnswer', message); // A redirect, for one.
  const seconds = Number(headers['retry-after'] ?? 0);
  return new ApiError(status, reason, message, (Number.isNaN(seconds) ? 1 : seconds) * 1000);
}
/** Is it of the kind that the path names? What stands between may answer with JSON of its own. */
function isExpected({ method, path }: ApiRequest, body: unknown): boolean {
  const kind = String(dictOf(body)['kind'] ?? '').toLowerCase();
  const place = /\/v\w+\/(?:namespaces\/[^/]+\/)?(\w+)(\/[^?]*)?(?:\?|$)/;
  const [, plural, name] = place.exec(path) ?? [];
  if (plural === undefined || method === 'DELETE') return kind !== '';
  return kind === plural.replace(/s$/, method === 'GET' && !name ? 'list' : '');
}
/** send(), but what is no success is thrown as ApiError; `warnings` takes in what is warned of. */
export async function call(world: World, request: ApiRequest, warnings?: Set<string>) {
  const answer = await world.send(request).catch((error: unknown) => {
    throw error instanceof ApiError ? error : new ApiError(0, 'NoAnswer', wordsOf(error));
  });
  const { status, headers, body } = answer;
  if (status < 200 || status >= 300 || !isExpected(request, body)) throw apiErrorOf(answer);
  const warning = headers['warning'];
  if (warning) world.log('warn', 'the API server warns', { warning, path: request.path });
  for (const [, text = ''] of (warning ?? '').matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g))
    warnings?.add(text.replaceAll(/\\(.)/g, '$1'));
  return body as Raw;
}

/** Credentials, and connections with one request at a time each. One that only waits, as a watch's,
 *  ends 20 s after its way is lost: Node's keepalive sends ten probes, a second apart. */
async function accessTo(server: URL, config: Config) {
  const { headers, tls, proxy } = await config.credentials();
  const { Pool, ProxyAgent, Socks5ProxyAgent, buildConnector } = await import('undici');
  const alive = { allowH2: false, keepAliveInitialDelay: 10_000 };
  const requestTls = { ...tls, ...alive };
  const open = (connections: number | null): Dispatcher => {
    const how = { allowH2: false, connectTimeout: 5_000, keepAliveTimeout: 60_000, connections };
    if (!proxy) return new Pool(server.origin, { ...how, connect: requestTls });
    if (!proxy.startsWith('socks'))
      return new ProxyAgent({ ...how, uri: proxy, proxyTls: alive, requestTls });
    const uri = proxy.replace(/^socks5h/, 'socks5'); // Names go to the proxy in any case.
    return new Socks5ProxyAgent(uri, { connect: buildConnector(alive), requestTls: tls });
  };
  return {
    server,
    headers,
    requests: open(BOUNDS.requestsMax),
    apart: open(null), // As many as it takes for the Lease and the watches: they wait for nobody.
    staleAt: performance.now() + BOUNDS.credentialsMs, // From then on files are read again,
    isRefused: false, // and after a 401 the kubeconfig, too.
  };
}
type Access = Awaited<ReturnType<typeof accessTo>>;
/** JSON as Go writes it: the API server compares the data of a ControllerRevision by its bytes. */
const written = (body: unknown) => JSON.stringify(body).replace(/[<>&\u2028\u2029]/g, unicode);
/** The body as JSON. What is none, a proxy's HTML page say, is quoted. */
function jsonOf(text: string, status: number): unknown {
  try {
    return text === '' ? undefined : JSON.parse(text);
  } catch {
    const words = text.replaceAll(/\s+/g, ' ').trim().slice(0, 120);
    return { message: `answer ${status}, not from an API server: ${words}` };
  }
}
/** One request; `on` gets each line of the answer. (undici's timeouts tick twice a second.) */
async function exchange(access: Access, request: ApiRequest, signal: AbortSignal, on?: Hear) {
  const { method, body, contentType = 'application/json' } = request;
  const { origin, pathname } = access.server;
  const path = pathname.replace(/\/$/, '') + request.path;
  const agent = `statefulcluster/${VERSION}`;
  const own = { accept: 'application/json', 'user-agent': agent, 'content-type': contentType };
  const headers = { ...own, ...access.headers };
  const isOfLease = request.path.startsWith('/apis/coordination.k8s.io/');
  const way = on || isOfLease ? access.apart : access.requests;
  const waits = { signal, headersTimeout: on ? BOUNDS.requestMs : 0, bodyTimeout: 0 };
  const asked = { origin, path, method, headers, body: body ? written(body) : '', ...waits };
  try {
    const answer = await way.request(asked);
    const status = answer.statusCode;
    const quiet = setTimeout(() => answer.body.destroy(new Error('went silent')), BOUNDS.quietMs);
    answer.body.once('close', () => clearTimeout(quiet));
    let text = '';
    for await (const piece of answer.body.setEncoding('utf8')) {
      quiet.refresh();
      text += piece;
      if (!on || status !== 200) continue;
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) if (line !== '') on(JSON.parse(line));
    }
    if (status === 401) Object.assign(access, { staleAt: 0, isRefused: true });
    const texts = Object.entries(answer.headers).map(([k, v]) => [k, [v].flat().join(', ')]);
    return { status, headers: Object.fromEntries(texts), body: jsonOf(text, status) };
  } catch (error) {
    access.staleAt = 0;
    throw error;
  }
}
/** `send` and `watch` of World. Access is renewed after a minute and after a failure, since tokens
 *  and authorities rotate. Nobody waits longer for a plugin than for an answer. */
export function connect(first: Config, reload: () => Promise<Config>) {
  const server = new URL(first.server);
  let config: Config | undefined;
  let known: Access | undefined;
  let opening: Promise<Access> | undefined;
  async function open(): Promise<Access> {
    if (known?.isRefused) config = undefined;
    const fresh = await accessTo(server, (config ??= await reload()));
    for (const old of [known?.requests, known?.apart]) void old?.close(); // What is in flight ends.
    return fresh;
  }
  async function access(late: AbortSignal): Promise<Access> {
    if (known && performance.now() < known.staleAt) return known;
    opening ??= open().finally(() => (opening = undefined));
    const tooLate = aborted(late, late).then(() => Promise.reject(late.reason));
    try {
      return (known = await Promise.race([opening, tooLate]));
    } catch (error) {
      throw new ApiError(0, 'NoCredentials', `no credentials: ${wordsOf(error)}`);
    }
  }
  const send: World['send'] = async (request) => {
    const late = AbortSignal.timeout(request.timeoutMs ?? BOUNDS.requestMs);
    const answer = await exchange(await access(late), request, late);
    return answer.status === 401 ? exchange(await access(late), request, late) : answer;
  };
  const watch: World['watch'] = async (path, on, signal) =>
    exchange(await access(signal), { method: 'GET', path }, signal, on);
  return { send, watch };
}

// ═══ 9 CACHE · effects ═══════════════════════════════════════════════════════════════════════════
// Lists and watches one kind in one scope and keeps what decisions need of each object, frozen. A
// partial list is never taken for the whole; an older version never replaces a newer one.

/** JSON as it came from the API server. */
export interface Raw {
  readonly [field: string]: any; // The only untyped door; the projections below close it.
}
const ms = (text: unknown) => (text ? Date.parse(`${text}`) : undefined);

const OURS = new Set<string>(Object.values(MARK));
/** Projects metadata. Others' annotations can be large, and nothing rests on them; of ours no more
 *  is kept than is ever written. */
export function metaOf(raw: Raw): Meta {
  const m = (raw['metadata'] ?? {}) as Raw;
  const own = Object.entries(dictOf(m['annotations']))
    .filter(([key, text]) => OURS.has(key) && typeof text === 'string')
    .map(([key, text]) => [key, text.slice(0, BOUNDS.annotationMax)]);
  return {
    namespace: m['namespace'] ?? '',
    name: m['name'] ?? '',
    uid: m['uid'] ?? '',
    resourceVersion: m['resourceVersion'] ?? '',
    generation: m['generation'] ?? 0,
    labels: m['labels'] ?? {},
    annotations: Object.fromEntries(own),
    owners: m['ownerReferences'] ?? [],
    createdMs: ms(m['creationTimestamp']) ?? 0,
    deletedMs: ms(m['deletionTimestamp']),
  };
}

/** The door: a field that is null is absent, as wherever Go reads it. Charts render empty ones. */
const withoutNulls = (part: unknown): Raw =>
  JSON.parse(JSON.stringify(part ?? {}, (_, value: unknown) => value ?? undefined));
/** The CRD has filled in the defaults, but those of what may be empty. */
export function clusterOf(raw: Raw): StatefulCluster {
  const spec = { volumeClaimTemplates: [], serviceName: '', ...withoutNulls(raw['spec']) };
  return { meta: metaOf(raw), spec: spec as unknown as Spec, status: raw['status'] ?? {} };
}

/** A list of which each entry has a name, by these names: conditions, containers. */
const keyed = (list: readonly Raw[] = [], key = 'name'): Raw =>
  Object.fromEntries(list.map((one) => [one[key], one]));
const isTrue = (condition?: Raw): boolean => condition?.['status'] === 'True';
const changedMs = (condition?: Raw): number | undefined => ms(condition?.['lastTransitionTime']);

/** Projects a pod. */
export function podOf(raw: Raw): Pod {
  const spec: Raw = raw['spec'] ?? {};
  const status: Raw = raw['status'] ?? {};
  const conditions = keyed(status['conditions'], 'type');
  const { Ready: ready, PodScheduled: scheduled, DisruptionTarget: disrupted } = conditions;
  const mounted = conditions['PodReadyToStartContainers'] ?? scheduled; // Older kubelets lack it.
  const { initContainerStatuses: first = [], containerStatuses: main = [] } = status;
  const all: readonly Raw[] = [...first, ...main];
  const waits = all.map(({ state }) => state?.waiting?.reason);
  const why = waits.find((word) => !STARTING.includes(word));
  const volumes: readonly Raw[] = spec['volumes'] ?? [];
  const specs: readonly Raw[] = spec['containers'] ?? [];
  const meta = metaOf(raw);
  const { deletionGracePeriodSeconds: left } = raw['metadata'] ?? {};
  const states = keyed(main);
  const images = specs.map((c) => [c.name, [states[c.name]?.containerID ?? '', c.image]] as const);
  const unplaced = isTrue(scheduled) ? undefined : scheduled;
  return {
    meta,
    node: spec['nodeName'] ?? '',
    phase: status['phase'] ?? 'Pending',
    graceSeconds: left ?? spec['terminationGracePeriodSeconds'] ?? 30,
    claims: volumes.flatMap((v) => v['persistentVolumeClaim']?.claimName ?? []),
    mountedMs: isTrue(mounted) ? changedMs(mounted) : undefined,
    startedMs: ms(status['startTime']),
    ready: isTrue(ready),
    readySinceMs: changedMs(ready),
    disruption: isTrue(disrupted) ? disrupted?.['reason'] : '',
    disruptedMs: changedMs(disrupted),
    restarts: all.reduce((sum, c) => sum + (c['restartCount'] ?? 0), 0),
    // CrashLoopBackOff shows only near the end of the back-off, `terminated` before.
    isDown: waits.includes('CrashLoopBackOff') || all.some((c) => c['state']?.terminated?.exitCode),
    trouble: why ?? unplaced?.['reason'] ?? '',
    lastWords: lastWordsIn(status, all, unplaced?.['message']),
    containers: Object.fromEntries(images),
    isObserved: (status['observedGeneration'] ?? Infinity) >= meta.generation,
    resize: resizeOf(specs, states, conditions),
  };
}
const STARTING = ['ContainerCreating', 'PodInitializing', undefined]; // Why one waits at first.
/** What the kubelet said of the pod, or how a container ended last. */
function lastWordsIn({ reason, message }: Raw, containers: readonly Raw[], unplaced = ''): string {
  const ends = containers.flatMap(({ name, state, lastState }) => {
    const end = state?.terminated ?? lastState?.terminated;
    if (!end?.exitCode) return [];
    const words = [`exit code ${end.exitCode}`, end.reason, end.message].filter(Boolean);
    return [`container ${name}: ${words.join(', ')}`];
  });
  const said = [reason, message].filter(Boolean).join(': ');
  return (said || (ends[0] ?? unplaced)).slice(0, 500);
}
/** KEP-1287: done when the status has the resources of the spec and no condition says otherwise. */
function resizeOf(specs: readonly Raw[], statuses: Raw, conditions: Raw): string {
  const open = conditions['PodResizePending'] ?? conditions['PodResizeInProgress'];
  const words = [open?.['reason'], open?.['message']].filter(Boolean).join(': ');
  const sizes = ({ requests: r, limits: l }: Raw = {}): readonly number[] =>
    [r?.cpu, r?.memory, l?.cpu, l?.memory].map((size) => quantity(`${size}`));
  const isDone = specs.every(({ name, resources }) => {
    const has = statuses[name]?.['resources'];
    return !has || isDeepStrictEqual(sizes(has), sizes(resources));
  });
  return open || !isDone ? words || 'InProgress' : '';
}
/** Projects a PersistentVolumeClaim. */
export function claimOf(raw: Raw): Claim {
  const { volumeName: volume = '', ...asked }: Raw = raw['spec'] ?? {};
  const phase = raw['status']?.phase ?? 'Pending';
  const request = asked['resources']?.requests?.storage ?? '';
  return { meta: metaOf(raw), phase, volume, request, spec: asked };
}
/** Projects a ControllerRevision. */
export function revisionOf(raw: Raw): Revision {
  const { template = {}, claimTemplates = [] }: Raw = withoutNulls(raw['data']);
  const meta = metaOf(raw);
  const hash = meta.labels[MARK.revision] ?? '';
  return { meta, hash, number: raw['revision'] ?? 0, template, claimTemplates };
}
/** Projects a Node. */
export function nodeOf(raw: Raw): Node {
  const { Ready: ready } = keyed(raw['status']?.conditions, 'type');
  const taints = ((raw['spec']?.taints ?? []) as Taint[])
    .filter(({ effect }) => effect === 'NoSchedule' || effect === 'NoExecute')
    .map(({ key, value = '', effect }) => ({ key, value, effect }));
  return {
    meta: metaOf(raw),
    ready: isTrue(ready),
    readySinceMs: changedMs(ready),
    unschedulable: raw['spec']?.unschedulable === true,
    taints,
  };
}
/** Projects a PersistentVolume. */
export function volumeOf(raw: Raw): Volume {
  const terms = raw['spec']?.nodeAffinity?.required?.nodeSelectorTerms as Raw[] | undefined;
  return (terms ?? []).map((t) => t['matchExpressions'] ?? []);
}

type Thing = { readonly meta: Meta };
/** What to follow, and who hears of each change. */
interface Source<T extends Thing> {
  readonly world: World;
  readonly path: string;
  project(raw: Raw): T;
  on(before: T | undefined, after: T | undefined, isNews: boolean): void;
  readonly signal: AbortSignal;
}
/** One kind in one scope, kept in memory. */
const newFeed = <T extends Thing>(source: Source<T>) => ({
  ...source,
  ready: Promise.withResolvers<void>(), // Listed once, or may not be and need not.
  items: new Map<string, T>(),
  version: 0, // All changes up to this resourceVersion are in.
  mustList: true, // Anew, from a quorum; else the watch goes on from `version`.
  listedAt: -1, // Uptime at which the newest list began; -1 before the first.
  streams: true, // Streaming lists; older API servers page instead.
  denied: '', // The API server's words when this kind may not be read.
  refusals: 0, // 403s in a row; three are believed: an API server first learns who may what.
  cut: new AbortController(), // Ends the stream that is open.
});
type Feed<T extends Thing> = ReturnType<typeof newFeed<T>>;

const keyOf = ({ namespace, name }: Meta): string => (namespace ? `${namespace}/${name}` : name);
const versionOf = (raw: Raw): number => Number(raw['metadata']?.resourceVersion ?? 0);
const unversioned = (o?: Thing): string =>
  JSON.stringify({ ...o, meta: { ...o?.meta, resourceVersion: '' } });

/** Starts to follow one kind, until aborted; `done` settles when it has ended. */
export function follow<T extends Thing>(source: Source<T>) {
  const feed = newFeed(source);
  return Object.assign(feed, { done: keepFollowing(feed) });
}
/** Throws the view away and lists anew from a quorum. */
function relist(feed: Feed<Thing>): void {
  feed.mustList = true;
  feed.cut.abort();
}

async function keepFollowing<T extends Thing>(feed: Feed<T>): Promise<void> {
  const { world, signal } = feed;
  for (let failures = 0; !signal.aborted;) {
    let before = feed.version;
    try {
      if (feed.mustList && !feed.streams) await listPages(feed);
      before = feed.version; // A list that had to be made is no progress of the watch.
      await stream(feed);
      failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      failures = feed.version > before ? 1 : failures + 1;
      await learn(feed, error);
      await world.sleep(pauseMs(world, error, failures, 800), signal);
    }
  }
}
/** Doubling with jitter, unless the API server asked for more. */
function pauseMs(world: World, why: unknown, times: number, minMs: number): number {
  const doubledMs = Math.min(minMs * 2 ** Math.min(times - 1, 10), LIMITS.retryMaxMs);
  const askedMs = why instanceof ApiError ? why.retryAfterMs : 0;
  return Math.max(askedMs, doubledMs * (0.5 + world.random() / 2));
}

/** After a failure all is listed anew: etcd may have been restored to a former state. */
async function learn(feed: Feed<Thing>, error: unknown): Promise<void> {
  const code = error instanceof ApiError ? error.code : 0;
  const message = wordsOf(error);
  feed.refusals = code === 403 ? feed.refusals + 1 : 0;
  if (feed.refusals >= 3) {
    feed.denied = message;
    if (feed.path === '/api/v1/nodes') feed.ready.resolve(); // The operator can work without.
  }
  // The kind itself is gone (its CRD was removed): so are its objects. Others cannot go. Discovery
  // must say so, too: a 404 alone may be that of a proxy.
  const isOwn = code === 404 && feed.path.includes('/enge.me/');
  const ask = { method: 'GET', path: '/apis' } as const;
  const { groups } = isOwn ? await call(feed.world, ask).catch((): Raw => ({})) : {};
  if (groups && !groups.some((group: Raw) => group['name'] === 'enge.me'))
    replaceAll(feed, new Map(), 0, feed.world.uptime());
  if ((code === 400 || code === 422) && feed.mustList) feed.streams = false;
  feed.mustList = true;
  feed.world.log('warn', 'watch restarts', { path: feed.path, code, error: message });
}

function lay<T>(map: Map<string, T> | undefined, name: string, object: T | undefined): void {
  if (object) map?.set(name, object);
  else map?.delete(name);
}
function put<T extends Thing>(feed: Feed<T>, key: string, object?: T, isNews = false): void {
  const before = feed.items.get(key);
  lay(feed.items, key, object && Object.freeze(object));
  // A new version alone is no news, but the next patch must name it.
  feed.on(before, object, isNews || unversioned(before) !== unversioned(object));
}
/** A complete list becomes the truth at once: what is not in it is gone. */
function replaceAll<T extends Thing>(feed: Feed<T>, fresh: Map<string, T>, v: number, at: number) {
  const wasDenied = feed.denied !== ''; // Nobody looked at what it kept: all of it is news.
  Object.assign(feed, { version: v, listedAt: at, denied: '', refusals: 0, mustList: false });
  for (const key of [...feed.items.keys()]) if (!fresh.has(key)) put(feed, key, undefined);
  for (const [key, object] of fresh) put(feed, key, object, wasDenied);
  feed.ready.resolve();
}
function applyEvent<T extends Thing>(feed: Feed<T>, event: WatchEvent): void {
  const version = versionOf(event.object);
  // A bookmark below what is known: etcd was restored to an older state.
  if (event.type === 'BOOKMARK' && version < feed.version) return relist(feed);
  if (version <= feed.version) return; // Replayed or reordered: what is known is newer.
  feed.version = version;
  if (event.type === 'BOOKMARK') return;
  const object = feed.project(event.object);
  const key = keyOf(object.meta);
  // One name, another UID: the end of the old object was not seen; a deletion and an addition.
  if (feed.items.get(key)?.meta.uid !== object.meta.uid) put(feed, key, undefined);
  // The last state of what was deleted may be news itself: whether it was on its way out.
  if (event.type === 'DELETED') feed.items.set(key, object);
  put(feed, key, event.type === 'DELETED' ? undefined : object);
}

async function listPages<T extends Thing>(feed: Feed<T>): Promise<void> {
  const at = feed.world.uptime();
  const fresh = new Map<string, T>();
  for (let more = ''; ;) {
    const path = withQuery(feed.path, { limit: 500, continue: more });
    const page = await call(feed.world, { method: 'GET', path });
    for (const object of (page['items'] ?? []).map(feed.project))
      fresh.set(keyOf(object.meta), object);
    more = page['metadata']?.continue ?? '';
    if (more === '') return replaceAll(feed, fresh, versionOf(page), at);
  }
}

/** One watch, begun with a streaming list where one is due. Ends with the stream. */
async function stream<T extends Thing>(feed: Feed<T>): Promise<void> {
  const { world, version: before } = feed;
  const at = world.uptime();
  let fresh = feed.mustList ? new Map<string, T>() : undefined;
  const cut = (feed.cut = new AbortController());
  const onEvent = (event: WatchEvent): void => {
    const { type, object: raw } = event;
    if (type === 'ERROR') {
      // Some servers leave the stream open after it.
      cut.abort(apiErrorOf({ status: raw['code'] ?? 500, headers: {}, body: raw }));
    } else if (!fresh) applyEvent(feed, event);
    else if (type !== 'BOOKMARK') {
      const object = feed.project(raw);
      // An API server may tell changes, too, before it says that the list has ended.
      lay(fresh, keyOf(object.meta), type === 'DELETED' ? undefined : object);
    } else if (raw['metadata']?.annotations?.['k8s.io/initial-events-end'] === 'true') {
      replaceAll(feed, fresh, versionOf(raw), at);
      fresh = undefined;
    }
  };
  const timeoutSeconds = Math.floor(300 + world.random() * 300);
  const resourceVersion = fresh ? '' : feed.version;
  const listing = fresh && { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' };
  const query = { watch: 'true', allowWatchBookmarks: 'true', timeoutSeconds, resourceVersion };
  const path = withQuery(feed.path, { ...query, ...listing });
  const either = AbortSignal.any([feed.signal, cut.signal]);
  const answer = await world.watch(path, onEvent, either).catch((error: unknown) => {
    if (!cut.signal.aborted) throw error;
  });
  if (cut.signal.reason instanceof ApiError) throw cut.signal.reason;
  if (cut.signal.aborted || !answer) return; // It is listed anew.
  if (answer.status !== 200) throw apiErrorOf(answer);
  if (world.uptime() - at < 1000 && feed.version === before)
    throw new ApiError(0, 'Brief', 'the stream ended at once, without news');
}

function withQuery(path: string, query: Readonly<Record<string, string | number>>): string {
  const [bare = '', has = ''] = path.split('?');
  const params = new URLSearchParams(has);
  for (const [k, v] of Object.entries(query)) if (v !== '') params.set(k, String(v));
  return params.size > 0 ? `${bare}?${params}` : bare;
}

// ═══ 10 QUEUE · effects ══════════════════════════════════════════════════════════════════════════
// Keys in the order they came, each at most once; `workers` at a time, one key never twice at once.
// A key whose work throws comes again with backoff, and no other key waits for it.

/** `add` and `addAfter` take keys at any time; they wait until `start`. `stop` takes up no further
 *  key and resolves when the running ones have ended. A large key rests `sizeOf` milliseconds from
 *  one run to the next: its events are looked at in batches, and it leaves time to others. */
export function newQueue(
  world: World,
  workers: number,
  work: (key: string) => Promise<void>,
  sizeOf: (key: string) => number = () => 0,
) {
  const waiting = new Set<string>();
  const running = new Map<string, Promise<void>>();
  const restUntil = new Map<string, number>();
  const failures = new Map<string, number>();
  const due = new Map<string, number>(); // The earliest uptime at which a key was asked for.
  let open = false;
  const add = (key: string): void => (waiting.add(key), pump());
  function addAfter(key: string, delayMs: number): void {
    const at = world.uptime() + delayMs;
    if (at >= (due.get(key) ?? Infinity)) return;
    due.set(key, at);
    void world.sleep(delayMs).then(() => {
      if (due.get(key) !== at) return; // An earlier time took its place.
      due.delete(key);
      add(key);
    });
  }
  async function run(key: string): Promise<void> {
    await Promise.resolve(); // So that a change of many objects is whole when it is looked at.
    const restMs = Math.min(sizeOf(key), BOUNDS.restMaxMs);
    lay(restUntil, key, restMs < 100 ? undefined : world.uptime() + restMs);
    try {
      await work(key);
      failures.delete(key);
    } catch (error) {
      const times = (failures.get(key) ?? 0) + 1;
      failures.set(key, times);
      const isConflict = error instanceof ApiError && error.code === 409; // Which is usual.
      const fields = { cluster: key, error: wordsOf(error), times };
      world.log(isConflict ? 'debug' : 'warn', 'reconcile failed, comes again', fields);
      addAfter(key, pauseMs(world, error, times, 100));
    }
    running.delete(key);
    pump();
  }
  function pump(): void {
    for (const key of waiting) {
      if (!open || running.size >= workers) return;
      if (running.has(key)) continue;
      waiting.delete(key);
      const restMs = (restUntil.get(key) ?? 0) - world.uptime();
      if (restMs > 0) addAfter(key, restMs);
      else running.set(key, run(key));
    }
  }
  const start = (): void => ((open = true), pump());
  const stop = (): Promise<unknown> => ((open = false), Promise.all(running.values()));
  return { add, addAfter, start, stop, depth: (): number => waiting.size };
}

// ═══ 11 EXECUTOR · effects ═══════════════════════════════════════════════════════════════════════
// Does what the plan says, stage by stage. Whatever is changed or deleted is named by UID, and by
// version where that matters, so a newer object of the same name is never hit. What fails holds
// back only what comes later for the same member and for its successor. It draws no conclusions:
// what was refused, and what ended, is left on the desk for the next plan.

/** One pass over one cluster: where to write, and what came of it. */
const newPass = (o: Operator, cluster: StatefulCluster, ledger: Ledger, scope: Scope) => ({
  ...{ o, world: o.world, at: o.world.uptime(), scope, ledger, desk: ledger.desk },
  cluster, // As the cache shows it, then as it was planned upon.
  newest: new Map<string, Meta>(), // Kind and name → the object as this pass left it.
  done: new Set<Action>(),
  held: new Set<string>(), // Identities for which nothing more is done in this pass.
  errors: new Map<Action, unknown>(), // But refusals that are noted for the action itself.
  warnings: new Set<string>(), // What the API server says of fields of its children.
  comesAgain: false, // Time was up, or something was refused: the next plan may know another way.
});
type Pass = ReturnType<typeof newPass>;
/** Nothing more is planned before the cache shows this write. */
function expect(pass: Pass, kind: keyof Scope, meta: Meta, wanted: Expectation['needs']): void {
  const { world, scope, ledger } = pass;
  const feed: Feed<Thing> = scope[kind];
  // A view that is later and lacks it is of before etcd was restored: only a list can tell.
  const isLost = feed.version >= Number(meta.resourceVersion) && !feed.items.has(keyOf(meta));
  const needs = wanted === 'version' && isLost ? 'list' : wanted;
  ledger.expected.add({ feed, meta, needs, at: world.uptime() });
  if (needs === 'list' && !feed.mustList) relist(feed);
}
/** The cluster is as it was planned upon, and nobody said stop. */
function isCurrent({ o, scope, cluster: { meta } }: Pass): boolean {
  const cached = scope.statefulclusters.items.get(keyOf(meta));
  const isSame = cached?.meta.uid === meta.uid && cached.meta.generation === meta.generation;
  return isSame && !isTerminating(cached) && !o.signal.aborted;
}

const CLUSTERS = 'statefulclusters';
const inNamespace = (namespace: string): string => namespace && `/namespaces/${namespace}`;
const GROUPS: Dict = { [REVISIONS]: '/apis/apps/v1', [CLUSTERS]: '/apis/enge.me/v1alpha1' };
const pathOf = (kind: Ref['kind'], namespace: string, name = ''): string =>
  `${GROUPS[kind] ?? '/api/v1'}${inNamespace(namespace)}/${kind}${name && `/${name}`}`;
const clusterPath = (namespace: string, name = ''): string => pathOf(CLUSTERS, namespace, name);
const FIELDS = 'fieldManager=statefulcluster';
const MERGE = { method: 'PATCH', contentType: 'application/merge-patch+json' } as const;
const STRATEGIC = { ...MERGE, contentType: 'application/strategic-merge-patch+json' } as const;

/** Does `work` for each, at most so many at once as the process has connections: bodies are built
 *  when they can be sent, and the API server takes none above 3 MB. */
async function forEach<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items.values(); // All runners take from it.
  const run = async (): Promise<void> => {
    for (const item of rest) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(items.length, BOUNDS.requestsMax) }, run));
}

// ── Bodies ──────────────────────────────────────────────────────────────────────────────────────
export type Body = Json & { readonly kind: string; readonly metadata: Json & { name: string } };
/** Body of a ControllerRevision. */
export function revisionBody(cluster: StatefulCluster, revision: Revision): Body {
  const { hash, number, template, claimTemplates } = revision;
  const { name } = revision.meta;
  const labels = { [MARK.cluster]: cluster.meta.name, [MARK.revision]: hash };
  const annotations = { [MARK.changeCause]: cluster.meta.annotations[MARK.changeCause] };
  const metadata = { name, labels, annotations, ownerReferences: [ownerOf(cluster)] };
  // As Go writes it, see `written`: other data could never be patched, nor orphaned.
  const data: Json = JSON.parse(canonicalJson({ template, claimTemplates }));
  return { apiVersion: 'apps/v1', kind: 'ControllerRevision', metadata, data, revision: number };
}
/** What the bodies of a member need of its Make. */
type Born = Pick<Make, 'identity' | 'revision' | 'replaces' | 'index'>;
/** Body of a member's pod at a revision. Child metadata comes from an allow-list: labels and
 *  annotations only. An adopted ordinal keeps its own labels for life. */
export function podBody(c: StatefulCluster, born: Born, nodesReadable: boolean): Body {
  const { identity, revision, replaces, index } = born;
  const { template, claimTemplates } = revision;
  const name = podName(c.meta.name, identity);
  const claims = claimTemplates.map((volume) => {
    const persistentVolumeClaim = { claimName: claimName(volume, c.meta.name, identity) };
    return { name: volume, persistentVolumeClaim };
  });
  const { hostname: _h, subdomain: _s, volumes = [], ...own } = template.spec ?? { containers: [] };
  const mounts = [...volumes.filter((v) => !claimTemplates.includes(v.name)), ...claims];
  const tolerations = tolerationsOf(template, nodesReadable);
  const labels = {
    ...podLabels(c, identity, revision),
    ...(/^\d+$/.test(identity) && { [MARK.index]: identity, [MARK.ordinalName]: name }),
    ...indexLabel(index),
  };
  const annotations = { ...withoutOurs(template.metadata?.annotations), [MARK.replaces]: replaces };
  const spec = {
    ...own,
    ...(c.spec.serviceName !== '' && { hostname: name, subdomain: c.spec.serviceName }),
    ...(mounts.length > 0 && { volumes: mounts }),
    ...(tolerations.length > 0 && { tolerations }),
  };
  const metadata = { name, labels, annotations, ownerReferences: [ownerOf(c)] };
  return { apiVersion: 'v1', kind: 'Pod', metadata, spec };
}

/** Body of an identity's claim of one template. The selector's labels are not copied: a GitOps tool
 *  would take an ownerless claim for its own. An owner reference is `whenDeleted: Delete`. */
export function claimBody(c: StatefulCluster, born: Born, of: string): Body {
  const { identity, replaces, index } = born;
  const { metadata, spec } = c.spec.volumeClaimTemplates.find((t) => t.metadata?.name === of) ?? {};
  const { whenDeleted } = c.spec.persistentVolumeClaimRetentionPolicy;
  const name = claimName(of, c.meta.name, identity);
  const ours = { ...ourLabels(c.meta.name, identity), ...indexLabel(index) };
  const labels = { ...withoutOurs(metadata?.labels), ...ours };
  const marks = { [MARK.prune]: 'Prune=false', [MARK.claims]: '', [MARK.replaces]: replaces };
  const annotations = { ...withoutOurs(metadata?.annotations), ...marks };
  const owned = whenDeleted === 'Delete' && { ownerReferences: [ownerOf(c)] };
  const meta = { name, labels, annotations, ...owned };
  return { apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: meta, spec };
}

// ── Writes ──────────────────────────────────────────────────────────────────────────────────────
/** Every write to the cluster and its children, and what the cache must show of it: what the API
 *  server made of it, which comes back, or that the object decided upon is gone. Without an answer
 *  only a new list can tell. */
async function submit(pass: Pass, kind: keyof Scope, request: ApiRequest, old?: Meta) {
  const { method, body } = request;
  try {
    const raw = await call(pass.world, request, kind === CLUSTERS ? undefined : pass.warnings);
    if (method === 'DELETE' && old) return void expect(pass, kind, old, 'absence');
    const meta = metaOf(raw);
    pass.newest.set(`${kind}/${meta.name}`, meta);
    expect(pass, kind, meta, 'version');
    return meta;
  } catch (error) {
    if (isGone(error) && old) return void expect(pass, kind, old, 'absence');
    const { code, message } = error as ApiError;
    // Nobody knows whether it landed. What is repeated with a precondition is safe all the same.
    const isOpen = code === 0 || (method === 'POST' && (code >= 500 || code === 408));
    if (isOpen) expect(pass, kind, pass.cluster.meta, 'list');
    // The next pass reads whose it is: nothing counts as made that is not ours (I8).
    if (isTaken(error) && kind !== REVISIONS)
      pass.ledger.hidden.set(`${kind}/${(body as Body).metadata.name}`, undefined);
    // The patch carries the UID of an object of which the name is another's by now.
    const isOther = code === 422 && message.includes('metadata.uid');
    // Nothing more is planned before the cache shows what came after the version decided upon.
    const resourceVersion = `${Number(old?.resourceVersion) + 1}`;
    if (old && (code === 409 || isOther))
      expect(pass, kind, { ...old, resourceVersion }, 'version');
    throw isOther ? new ApiError(409, 'Conflict', message) : error;
  }
}
/** An object as it was decided upon, or as an earlier action of this pass left it. */
const latest = ({ newest }: Pass, { kind, object: { meta } }: Patch | Delete): Meta =>
  newest.get(`${kind}/${meta.name}`) ?? meta;

/** A patch that lands only on the very object and version decided upon; false when it is gone. */
async function patch(pass: Pass, a: Patch, change: Json, type: Partial<ApiRequest>, under = '') {
  const { namespace, name, resourceVersion } = latest(pass, a);
  const { meta } = a.object;
  const path = `${pathOf(a.kind, namespace, name)}${under}?${FIELDS}`;
  const metadata = { ...(change['metadata'] as Json), uid: meta.uid, resourceVersion };
  const request = { ...MERGE, ...type, path, body: { ...change, metadata } };
  // An old API server answers 404 where it does not know the subresource.
  return (await submit(pass, a.kind, request, under ? undefined : meta)) !== undefined;
}

/** A delete that hits only the object that was decided upon. Gone already is as good. */
async function remove(pass: Pass, a: Delete): Promise<true> {
  const { namespace, name, uid, resourceVersion } = latest(pass, a);
  // I3: the version too, so that a claim bound in the meantime is not deleted as unbound.
  const preconditions = a.kind === CLAIMS ? { uid, resourceVersion } : { uid };
  // A grace period of 0 is a force-delete, which frees the name while containers may still run.
  const gracePeriodSeconds = 'claims' in a.object ? Math.max(1, a.object.graceSeconds) : undefined;
  const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions, gracePeriodSeconds };
  const path = pathOf(a.kind, namespace, name);
  await submit(pass, a.kind, { method: 'DELETE', path, body }, a.object.meta);
  return true;
}
/** Throws where admission gave it labels that leave `spec.selector`. */
async function create(pass: Pass, kind: Kind, body: Body): Promise<true> {
  const path = `${pathOf(kind, pass.cluster.meta.namespace)}?${FIELDS}`;
  const made = await submit(pass, kind, { method: 'POST', path, body });
  const words = kind === PODS && labelProblem(pass.cluster, body, made?.labels ?? {});
  if (words) throw new ApiError(422, 'Invalid', words);
  return true;
}

/** One action; false when there is nothing left to do it to. */
async function perform(pass: Pass, a: Action): Promise<boolean> {
  if (a.do === 'Delete') return remove(pass, a);
  if (a.do === 'Make') return makeMember(pass, a);
  if (a.do === 'Keep') return create(pass, REVISIONS, revisionBody(pass.cluster, a.revision));
  // The resize goes first: it may be refused, and the second patch says that all was asked for.
  if (a.resize) await patch(pass, a, a.resize, STRATEGIC, '/resize');
  if (await patch(pass, a, a.change, a.verb === 'update' ? STRATEGIC : MERGE)) return true;
  return a.verb === 'retire'; // Nothing is left to mark.
}

/** Claims first, then the pod. Nothing is rolled back: what was made is found again. */
async function makeMember(pass: Pass, a: Make): Promise<true> {
  const { o, cluster } = pass;
  for (const name of a.claims) await create(pass, CLAIMS, claimBody(cluster, a, name));
  return create(pass, PODS, podBody(cluster, a, readsNodes(o)));
}
/** What admission made of a new pod's labels, if `spec.selector` does not match them any more. */
function labelProblem({ spec }: StatefulCluster, { metadata }: Body, made: Dict): string {
  if (selectorMatches(spec.selector, made)) return '';
  const asked = dictOf(metadata['labels']);
  const keys = unique([...Object.keys(asked), ...Object.keys(made)]);
  const changed = keys.filter((key) => asked[key] !== made[key]);
  return `${ADMISSION}: ${fewNames(changed)}; the selector would not match them`;
}

/** This process stood still, or all took too long: what was read in this pass is old (I10). */
const isOld = ({ world, at }: Pass): boolean => world.uptime() - at >= BOUNDS.oldMs;
function noteRefusal({ desk, world }: Pass, key: string, message: string): void {
  desk.backoff.set(key, nextBackoff(desk.backoff.get(key), message, world.uptime()));
}
/** Does one action, or notes why not: a refusal, which is not repeated before its time. One to make
 *  a member speaks of all of them, and is noted by `execute`. */
async function attempt(pass: Pass, a: Action): Promise<void> {
  const { desk, world, done, held, errors } = pass;
  const key = a.do === 'Make' ? makeKey(pass.cluster) : keyOfAction(a);
  try {
    if (!isOld(pass) && !waiting(desk.backoff, key, world.uptime()) && (await perform(pass, a))) {
      done.add(a);
      desk.backoff.delete(key);
      settle(pass, a);
    }
  } catch (error) {
    if (isRefusal(error) && a.do !== 'Make') noteRefusal(pass, key, wordsOf(error));
    else errors.set(a, error);
    pass.comesAgain ||= isRefusal(error);
  }
  if (!done.has(a) && stageOf(a) !== 'keep' && a.identity !== '') held.add(a.identity);
}
/** What a thing done leaves on the desk: the end of an identity, or a return, so that a member that
 *  ends again and again returns ever more slowly. */
function settle(pass: Pass, a: Action): void {
  const { went } = pass.desk;
  if (a.do === 'Make' && a.because !== 'Recreated') noteRefusal(pass, `return/${a.identity}`, '');
  if (!(a.because in ENDS) || !('object' in a)) return;
  // A pod that is marked with the same word is deleted so that its member comes back.
  const isLast = ['end', 'release'].includes(a.verb);
  const isGoing = isLast && latest(pass, a).annotations[MARK.returns] !== a.because;
  if (!isGoing && a.verb !== 'retire') return;
  const pod = isGoing ? (a.object as Pod) : went.get(a.identity)?.pod;
  went.set(a.identity, { pod, reason: a.because as EndReason, atMs: pass.world.now() });
}

/** Slow start as in ReplicaSet: 1, 2, 4, … at a time, and no further batch after a failure. */
async function makeMembers(pass: Pass, planned: readonly Action[]): Promise<void> {
  const { world, errors, desk } = pass;
  const tries = desk.backoff.get(makeKey(pass.cluster))?.times ?? 0;
  const later = planned.slice(0, tries % planned.length); // One refused for good keeps nobody.
  const all = [...planned.slice(later.length), ...later];
  const untilUptime = world.uptime() + BOUNDS.passMs;
  for (let start = 0, size = 1; start < all.length && isCurrent(pass); start += size, size *= 2) {
    if (start > 0 && world.uptime() >= untilUptime) return void (pass.comesAgain = true);
    const batch = all.slice(start, start + size);
    await forEach(batch, (a) => attempt(pass, a));
    if (batch.some((a) => errors.has(a))) return;
  }
}
const stageOf = (a: Action): (typeof STAGES)[number] => VERBS[a.verb][0];
/** I4: a member that could not be ended keeps its place, whoever was to come after it. */
const goesOn = ({ held }: Pass, a: Action): boolean =>
  !held.has(a.identity) && !(a.do === 'Make' && held.has(a.after ?? ''));
/** Runs the actions stage by stage: those of one member one after the other, members side by
 *  side. Never rejects; what failed stands in `pass.errors`. */
async function execute(pass: Pass, actions: readonly Action[]): Promise<void> {
  for (const stage of STAGES) {
    const now = actions.filter((a) => stageOf(a) === stage && goesOn(pass, a));
    const groups = Map.groupBy(now, (a): unknown => a.identity || a);
    const inTurn = async (group: readonly Action[]): Promise<void> => {
      for (const a of group) if (goesOn(pass, a)) await attempt(pass, a);
    };
    await (stage === 'make' ? makeMembers(pass, now) : forEach([...groups.values()], inTurn));
  }
  // The first in the plan, not in time: it stands in the status, which must not change each pass.
  const refusal = actions.map((a) => pass.errors.get(a)).find(isRefusal);
  if (refusal) noteRefusal(pass, makeKey(pass.cluster), wordsOf(refusal));
}

// ═══ 12 CONTROLLER · effects ═════════════════════════════════════════════════════════════════════
// reconcile(key): snapshot → decide → execute → status → requeue. It moves what the rooms above THE
// LINE decided; what a member is it asks only to forget what is hidden. Between two passes it keeps
// one Ledger for each cluster: to lose it makes it wait longer, and never ends anything sooner.

/** What `run` is asked to do, and where it counts. */
export interface Options {
  readonly namespaces: readonly string[]; // Empty: all.
  readonly selector: string; // Of the StatefulClusters; '' for all.
  readonly workers: number;
  readonly vitals?: Vitals;
}
/** A write that the cache must show before its cluster is planned again. */
interface Expectation {
  readonly feed: Feed<Thing>;
  readonly meta: Meta;
  // Its version, that the object is gone, or, as nobody knows what came of it, a list from later.
  readonly needs: 'version' | 'absence' | 'list';
  readonly at: number; // Uptime of the write.
}
/** What is kept for one cluster between passes, and its children as the feeds show them. */
const newLedger = (uid: string) => ({
  uid,
  children: {
    pods: new Map<string, Pod>(),
    persistentvolumeclaims: new Map<string, Claim>(),
    controllerrevisions: new Map<string, Revision>(),
  },
  expected: new Set<Expectation>(),
  hidden: new Map<string, Thing | undefined>(), // Children that no feed shows, as last seen.
  told: new Map<string, number>(), // Events, and when they were written.
  desk: openDesk(),
  volumes: new Map<string, Volume>(), // Read once.
  statusAt: -Infinity, // Uptime of the last status that was written.
  warned: { generation: 0, message: '' }, // What the API server said of fields of its children.
});
type Ledger = ReturnType<typeof newLedger>;
/** The desk, as the rooms below THE LINE write on it. */
const openDesk = (desk: Partial<Desk> = {}) => ({
  seen: new Map(desk.seen),
  went: new Map(desk.went),
  calm: new Map(desk.calm),
  backoff: new Map(desk.backoff),
});
interface Scope {
  readonly statefulclusters: Feed<StatefulCluster>;
  readonly pods: Feed<Pod>;
  readonly persistentvolumeclaims: Feed<Claim>;
  readonly controllerrevisions: Feed<Revision>;
}
/** All state of a running operator. */
function newOperator(outer: World, options: Options, signal: AbortSignal) {
  const { workers, vitals = newVitals(outer) } = options;
  const world = onServerClock(outer);
  const sizeOf = (key: string): number => o.ledgers.get(key)?.children.pods.size ?? 0;
  const queue: Queue = newQueue(world, workers, (key) => reconcile(o, key), sizeOf);
  const o = {
    world,
    signal,
    vitals,
    queue,
    ledgers: new Map<string, Ledger>(), // By cluster key.
    scopes: new Map<string, Scope>(), // By namespace, '' for all.
    nodes: undefined as Feed<Node> | undefined,
    blindUntil: 0, // Uptime at which a volume may be read again, after a 403.
  };
  return o;
}
type Queue = ReturnType<typeof newQueue>;
type Operator = ReturnType<typeof newOperator>;
const readsNodes = ({ nodes }: Operator): boolean => nodes?.denied === '';
const scopeOf = ({ scopes }: Operator, key: string): Scope | undefined =>
  scopes.get(key.slice(0, key.indexOf('/'))) ?? scopes.get('');
/** The ledger of a cluster, or of what will be one; with another UID a new one begins. What was
 *  written for a former object of this name is awaited still. */
function ledgerOf({ ledgers }: Operator, key: string, uid?: string): Ledger {
  const known = ledgers.get(key);
  if (known && (uid === undefined || known.uid === uid)) return known;
  const ledger = newLedger(uid ?? '');
  if (known) Object.assign(ledger, { children: known.children, expected: known.expected });
  ledgers.set(key, ledger);
  return ledger;
}
/** The whole operator on one World, until aborted: what `run` starts and the simulation runs. */
export async function runOperator(outer: World, options: Options, signal: AbortSignal) {
  const o = newOperator(outer, options, signal);
  const { world, queue, vitals } = o;
  vitals.phase = 'syncing';
  const feeds = startFeeds(o, options);
  const done = Promise.all(feeds.map((feed) => feed.done));
  const stopped = aborted(signal, signal);
  await Promise.race([Promise.all(feeds.map((feed) => feed.ready.promise)), stopped]);
  if (!signal.aborted) {
    // Nothing is planned from a view that is not whole; what was listed waits in the queue.
    world.log('info', 'caches are synced', { waiting: queue.depth() });
    Object.assign(vitals, { phase: 'synced', depth: queue.depth });
    queue.start();
  }
  await stopped;
  // Whatever hangs is abandoned: the next start finds it done or undone.
  await Promise.race([Promise.all([queue.stop(), done]), world.sleep(BOUNDS.stopMaxMs)]);
}

/** The same World, but `now()` is the API server's clock: the machine's own may be wrong. */
function onServerClock(world: World): World {
  // Uptime goes on evenly, should this machine's clock be set between two answers. Those name whole
  // seconds, and take time: less than two seconds are no difference.
  let offset = world.now() - world.uptime();
  const send: World['send'] = async (request) => {
    const answer = await world.send(request);
    const theirs = Date.parse(answer.headers['date'] ?? '') - world.uptime(); // Or NaN.
    const ms = Math.round(Math.abs(theirs - offset));
    if (ms > 30_000) world.log('warn', "this machine's clock is not the API server's", { ms });
    if (ms > 2_000) offset = theirs;
    return answer;
  };
  return { ...world, send, now: () => world.uptime() + offset };
}

// ── Feeds ───────────────────────────────────────────────────────────────────────────────────────
function startFeeds(o: Operator, options: Options) {
  const feeds: { readonly ready: PromiseWithResolvers<void>; readonly done: Promise<void> }[] = [];
  function watch<T extends Thing>(path: string, project: (raw: Raw) => T, on: Source<T>['on']) {
    const feed = follow({ world: o.world, path, project, on, signal: o.signal });
    feeds.push(feed);
    return feed;
  }
  for (const ns of options.namespaces.length > 0 ? options.namespaces : ['']) {
    // By our label, so that other workloads cost nothing.
    const children = <T extends Thing>(kind: Kind, project: (raw: Raw) => T) => {
      const path = withQuery(pathOf(kind, ns), { labelSelector: MARK.cluster });
      return watch(path, project, (a, b, isNews) => onChild(o, kind, a, b, isNews));
    };
    const clusters = withQuery(clusterPath(ns), { labelSelector: options.selector });
    o.scopes.set(ns, {
      pods: children(PODS, podOf),
      persistentvolumeclaims: children(CLAIMS, claimOf),
      controllerrevisions: children(REVISIONS, revisionOf),
      statefulclusters: watch(clusters, clusterOf, (a, b, isNews) => {
        const meta = (b ?? a)?.meta;
        if (meta && isNews) o.queue.add(keyOf(meta));
      }),
    });
  }
  // Who is on it, who looks for one, who may have to leave its own: a pass tells, and is cheap.
  o.nodes = watch('/api/v1/nodes', nodeOf, (_before, _after, isNews) => {
    if (isNews) for (const key of o.ledgers.keys()) o.queue.add(key);
  });
  return feeds;
}

const clusterKeyOf = ({ meta }: Thing) => `${meta.namespace}/${meta.labels[MARK.cluster] ?? ''}`;
/** Keeps the index of children by cluster, and wakes the cluster once the index is right. */
function onChild(o: Operator, kind: Kind, before?: Thing, after?: Thing, isNews?: boolean): void {
  const [from, to] = [before && clusterKeyOf(before), after && clusterKeyOf(after)];
  if (before && from !== undefined && from !== to) {
    const ledger = ledgerOf(o, from);
    ledger.children[kind].delete(before.meta.name);
    if (kind !== REVISIONS) onLeft(o, ledger, kind, before);
  }
  if (after && to !== undefined) lay<Thing>(ledgerOf(o, to).children[kind], after.meta.name, after);
  for (const key of unique([from, to])) if (key !== undefined && isNews) o.queue.add(key);
}
/** A pod that was seen to end is remembered, with its node and its last words. What left the watch
 *  without an end may have lost its label only: it is hidden. */
function onLeft(o: Operator, { uid, desk, hidden }: Ledger, kind: Kind, child: Thing): void {
  const { meta } = child;
  if (kind === PODS && !isControlledBy(meta, uid)) return;
  if (!isTerminating(child)) hidden.set(`${kind}/${meta.name}`, child);
  if (kind !== PODS) return;
  const pod = child as Pod;
  const identity = identityOf(pod, meta.labels[MARK.cluster] ?? '');
  const reason = desk.went.get(identity)?.reason;
  if (isTerminating(pod)) desk.went.set(identity, { pod, reason, atMs: o.world.now() });
  // A quota may have room again: what was refused may be tried at once.
  for (const what of desk.backoff.keys()) if (what.startsWith('make/')) desk.backoff.delete(what);
}
// ── What is kept between passes ─────────────────────────────────────────────────────────────────
function isSeen({ feed, meta, needs, at }: Expectation): boolean {
  if (feed.listedAt >= at) return true; // The list began when the answer was there, or overdue.
  if (needs === 'list') return false;
  const found = feed.items.get(keyOf(meta))?.meta;
  if (needs === 'absence') return found?.uid !== meta.uid || found.deletedMs !== undefined;
  const version = Number(meta.resourceVersion);
  // An older object in a view that claims to be newer: etcd was restored, and a list will tell.
  return feed.version >= version && (!found || Number(found.resourceVersion) >= version);
}
/** Read-your-writes: no plan before the cache shows what was written. A cache that lags long is
 *  listed anew; it is never just believed, or a stale view would create or delete twice (I4). */
function hasCaughtUp({ world, queue }: Operator, key: string, { expected }: Ledger): boolean {
  for (const e of expected) {
    const { feed, needs, at } = e;
    const isDue = needs === 'list' || world.uptime() - at >= 10_000;
    if (isSeen(e)) expected.delete(e);
    // A list that is on its way is left to end, however slow it is: cut, it would never be whole.
    else if (isDue && !feed.mustList) {
      world.log('warn', 'the cache lags own writes', { cluster: key, path: feed.path });
      relist(feed);
    }
  }
  if (expected.size > 0) queue.addAfter(key, BOUNDS.recheckMs);
  return expected.size === 0;
}

/** Copies: the feeds go on while the pass waits for answers, which are laid over them. */
function snapshotOf(o: Operator, cluster: StatefulCluster, { children, desk, volumes }: Ledger) {
  const feeds = Object.values({ ...scopeOf(o, keyOf(cluster.meta)) });
  const named = new Set([...children.persistentvolumeclaims.values()].map((claim) => claim.volume));
  for (const name of volumes.keys()) if (!named.has(name)) volumes.delete(name);
  return {
    cluster,
    pods: new Map(children.pods),
    claims: new Map(children.persistentvolumeclaims),
    revisions: new Map(children.controllerrevisions),
    nodes: readsNodes(o) ? new Map(o.nodes?.items) : undefined,
    volumes,
    volumesReadable: o.world.uptime() >= o.blindUntil,
    bodies: new Map<string, Raw>(),
    answers: new Map<string, string>(),
    desk: openDesk(desk) as Desk,
    denied: feeds.find((feed) => feed.denied !== '')?.denied ?? '',
    uptime: o.world.uptime(),
  };
}
type OpenSnapshot = ReturnType<typeof snapshotOf>;

/** Lays what no feed shows over the snapshot: as it is now or, without an answer, as it was last
 *  seen, so that nothing rests on its absence. It is hidden until a feed shows it or it is gone. */
async function findHidden(o: Operator, s: OpenSnapshot, { hidden }: Ledger): Promise<void> {
  await forEach([...hidden], async ([key, last]) => {
    const [kind, name] = key.split('/') as [Kind, string];
    const all: Map<string, Thing> = kind === PODS ? s.pods : s.claims;
    if (all.has(name)) return void hidden.delete(key);
    lay(all, name, last);
    const ref = refOf(kind, name);
    overlay(s, ref, await read(o, s.cluster, ref));
    lay(hidden, key, all.get(name));
  });
}
// ── Questions and answers ───────────────────────────────────────────────────────────────────────
/** An object, or undefined: there is none; or words: why a trial failed, or nothing is known. */
type Answer = Raw | string | undefined;

/** Plans, reads anew what the plan asks for, and plans again, until it answers. What cannot be read
 *  stays unknown in this pass, and so does what is asked for too late. */
async function decide(o: Operator, s: OpenSnapshot): Promise<{ s: Snapshot; p: Plan }> {
  for (let round = 0; ; round++) {
    const p = plan(s, o.world.now(), o.world.random);
    if (p.ask === undefined) return { s, p };
    const { cluster } = s;
    const isLate = round >= BOUNDS.askMax;
    await forEach(p.ask, async (ref) => {
      overlay(s, ref, isLate ? `${NO_ANSWER}not read in this pass` : await read(o, cluster, ref));
    });
    s.volumesReadable = o.world.uptime() >= o.blindUntil;
    if (s.cluster.meta.uid !== cluster.meta.uid)
      throw new ApiError(410, 'Gone', 'the cluster is gone: the cache will say so');
  }
}
/** A GET, or a trial. */
async function read(o: Operator, cluster: StatefulCluster, ref: Ref): Promise<Answer> {
  const { kind, name, trial, withClaims } = ref;
  if (trial) return tryOut(o, cluster, trial, withClaims);
  const namespace = ['nodes', 'persistentvolumes'].includes(kind) ? '' : cluster.meta.namespace;
  try {
    const path = pathOf(kind, namespace, name);
    return await call(o.world, { method: 'GET', path, timeoutMs: BOUNDS.askMs });
  } catch (error) {
    const isBlind = kind === 'persistentvolumes' && isRefusal(error) && error.code === 403;
    if (isBlind) o.blindUntil = o.world.uptime() + LIMITS.backoffMaxMs;
    return isBlind || isGone(error) ? undefined : NO_ANSWER + wordsOf(error);
  }
}
/** A dry-run of a new member; that a name exists is the last thing to be objected to. */
async function tryOut(o: Operator, c: StatefulCluster, r: Revision, withClaims = false) {
  const known = withClaims ? claimTemplateNames(c.spec) : [];
  const names = r.claimTemplates.filter((name) => known.includes(name));
  const trial = { identity: 'trial', revision: r, index: undefined };
  const pod = podBody(c, trial, readsNodes(o));
  for (const body of [...names.map((name) => claimBody(c, trial, name)), pod]) {
    const path = pathOf(body === pod ? PODS : CLAIMS, c.meta.namespace);
    const query = `?dryRun=All&fieldValidation=Strict&${FIELDS}`;
    try {
      const made = await call(o.world, { method: 'POST', path: path + query, body });
      // It comes as it would be.
      if (body === pod) return labelProblem(c, pod, metaOf(made).labels) || made;
    } catch (error) {
      const words = wordsOf(error);
      if (isTaken(error)) continue;
      if (!isRefusal(error)) return NO_ANSWER + words;
      if (!words.includes('does not support dry run')) return words;
      o.world.log('warn', 'a trial could not be made, and counts as passed', { words });
    }
  }
  return undefined;
}

/** Lays what was read anew over the snapshot. */
function overlay(s: OpenSnapshot, ref: Ref, raw: Answer): void {
  const { kind, name } = ref;
  s.answers.set(keyOfRef(ref), typeof raw === 'string' ? raw : '');
  if (typeof raw === 'string') return;
  if (kind === 'pods' || kind === 'trials') lay(s.bodies, name, raw);
  if (kind === 'pods') lay(s.pods, name, raw && podOf(raw));
  if (kind === 'persistentvolumes') lay(s.volumes, name, raw && volumeOf(raw));
  if (kind === 'persistentvolumeclaims') lay(s.claims, name, raw && claimOf(raw));
  if (kind === 'controllerrevisions') lay(s.revisions, name, raw && revisionOf(raw));
  if (kind === 'nodes') lay(s.nodes, name, raw && nodeOf(raw));
  if (kind === 'statefulclusters') s.cluster = clusterOf(raw ?? {});
}

// ── One pass ────────────────────────────────────────────────────────────────────────────────────
async function reconcile(o: Operator, key: string): Promise<void> {
  const scope = scopeOf(o, key);
  const cluster = scope?.statefulclusters.items.get(key);
  if (!hasCaughtUp(o, key, ledgerOf(o, key))) return; // It may be chosen again before that.
  const ledger = ledgerOf(o, key, cluster?.meta.uid ?? '');
  if (!scope || !cluster) {
    o.vitals.sights.delete(key);
    if (Object.values(ledger.children).every((all) => all.size === 0)) o.ledgers.delete(key);
    return;
  }
  const pass = newPass(o, cluster, ledger, scope);
  let result = 'error';
  try {
    await passOver(pass);
    result = 'success';
  } catch (error) {
    if (!(error instanceof ApiError)) await confess(pass, error);
    throw error;
  } finally {
    count(o.vitals, 'statefulcluster_reconciles_total', { result });
    time(o.vitals, 'statefulcluster_reconcile_duration_seconds', {}, o.world.uptime() - pass.at);
  }
}
async function passOver(pass: Pass): Promise<void> {
  const { o, world, ledger, errors, warnings } = pass;
  const s = snapshotOf(o, pass.cluster, ledger);
  await findHidden(o, s, ledger);
  const { p } = await decide(o, s);
  // Of others nothing rests on it; a foreign object harms nobody whose identity is over.
  const open = p.members.filter((m) => m.life !== 'over' || m.pod);
  for (const key of ledger.hidden.keys())
    if (!open.some((m) => key.endsWith(`-${m.identity}`))) ledger.hidden.delete(key);
  pass.cluster = s.cluster;
  await execute(pass, p.actions);
  const done = p.actions.filter((a) => pass.done.has(a));
  const desk = (ledger.desk = openDesk(remember(s, p, pass.desk)));
  await world.sleep(0); // Others have their turn: the status of a large cluster takes long.
  const { generation } = s.cluster.meta;
  const message = [...warnings].join('; ');
  if (message || ledger.warned.generation !== generation) ledger.warned = { generation, message };
  const notes = [...p.notes, ledger.warned.message];
  const status = statusOf({ ...s, desk }, { ...p, notes }, world.now());
  const states = p.members.filter(isLive).map((m) => m.state);
  o.vitals.sights.set(keyOf(s.cluster.meta), { ...status, states });
  for (const { because: reason } of done.filter((a) => a.do === 'Make' && a.replaces))
    count(o.vitals, 'statefulcluster_replacements_total', { reason });
  for (const story of storiesOf(done)) await recordEvent(pass, story);
  if (message) await recordEvent(pass, { reason: 'Warned', type: 'Warning', message });
  await report(pass, status);
  requeue(pass, p);
  const failure = [...errors.values()].find((error) => !isRefusal(error));
  if (failure) throw failure;
  const unknown = [...s.answers.values()].find((words) => words.startsWith(NO_ANSWER));
  if (unknown) throw new ApiError(0, 'NoAnswer', unknown);
}
/** When the next pass comes, should nothing happen before. */
function requeue(pass: Pass, p: Plan): void {
  const { o, cluster, ledger, comesAgain } = pass;
  const key = keyOf(cluster.meta);
  const uptime = o.world.uptime();
  // What was refused is tried again in its time, and a right may be given yet.
  const until = [...ledger.desk.backoff.values()].map((b) => b.untilUptime);
  const waits = [...until, o.blindUntil].map((at) => at - uptime).filter((ms) => ms > 0);
  if (ledger.expected.size > 0) waits.push(BOUNDS.recheckMs);
  if (ledger.hidden.size > 0) waits.push(LIMITS.trialMs); // No event tells what becomes of it.
  o.queue.addAfter(key, Math.min(p.wakeMs, ...waits));
  if (comesAgain || isOld(pass)) o.queue.add(key); // Last in the queue: others have their turn.
}

// ── What people see ─────────────────────────────────────────────────────────────────────────────
/** One Event of a pass; its type is Normal or Warning. */
export type Story = Readonly<Record<'reason' | 'type' | 'message', string>>;
/** One Event for each Reason of a pass: 300 creations are one line. Bookkeeping is no news. */
export function storiesOf(done: readonly Action[]): readonly Story[] {
  const news = done.filter((a) => a.because !== 'Revised' && a.verb !== 'announce');
  const oldOf = (a: Action): string => (a.do === 'Make' && a.replaces?.split(' ')[0]) || '';
  const verbOf = (a: Action): string => (oldOf(a) ? 'replaced' : VERBS[a.verb][1]);
  return [...Map.groupBy(news, (a) => a.because)].map(([reason, all]): Story => {
    const parts = [...Map.groupBy(all, verbOf)].map(([verb, same]) => {
      const names = same.map((a) => (oldOf(a) ? `${oldOf(a)} by ${a.identity}` : subjectOf(a)));
      return `${verb} ${fewNames(names)}`;
    });
    const ended = all.flatMap((a) => (a.verb === 'end' && 'object' in a ? [a.object as Pod] : []));
    const words = ended.map((pod) => pod.lastWords).find(Boolean);
    const isLoss = reason in ENDS && ENDS[reason as EndReason].heir && reason !== 'Updated';
    const message = [...parts, words].filter(Boolean).join('; ');
    return { reason, type: isLoss ? 'Warning' : 'Normal', message };
  });
}

const BAD = ['Stalled', 'ReplacementWithheld', 'ClaimTemplatesDrifted'];
/** Writes the status when it differs, at most once a second, on the version computed from. What
 *  turned bad is an Event, too; that it turned good again is in the status. */
async function report(pass: Pass, status: Pick<Status, 'conditions'>): Promise<void> {
  const { o, cluster, ledger } = pass;
  const { meta, status: before } = cluster;
  // Fields that a newer version or a hand wrote stay, and are no difference.
  const isSame = canonicalJson({ ...before, ...status }) === canonicalJson(before);
  if (isTerminating(cluster) || isSame) return;
  const dueMs = ledger.statusAt + 1_000 - o.world.uptime();
  if (dueMs > 0) return o.queue.addAfter(keyOf(meta), dueMs);
  const { namespace, name, uid, resourceVersion } = meta;
  const path = `${clusterPath(namespace, name)}/status?${FIELDS}`;
  const body = { metadata: { uid, resourceVersion }, status };
  if (!(await submit(pass, CLUSTERS, { ...MERGE, path, body }, meta))) return;
  ledger.statusAt = o.world.uptime();
  for (const { type: reason, message, ...c } of status.conditions)
    if (BAD.includes(reason) && c.status === 'True' && !trueIn(cluster, reason))
      await recordEvent(pass, { reason, type: 'Warning', message });
}

/** A bug stops no other cluster, and stands where people look. */
async function confess(pass: Pass, error: unknown): Promise<void> {
  const { meta, status } = pass.cluster;
  const message = wordsOf(error);
  const where = error instanceof Error ? error.stack : message;
  pass.world.log('error', 'bug', { cluster: keyOf(meta), error: where });
  const { conditions: before = [] } = status;
  const reason = 'InternalError';
  const next = { type: 'Stalled', status: 'True', reason, message } as const;
  // Words that differ each time would wake the cluster each time.
  if (before.some((c) => c.reason === reason && c.observedGeneration === meta.generation)) return;
  const stalled = setCondition(pass.cluster, next, pass.world.now());
  await report(pass, { conditions: [...before.filter((c) => c.type !== 'Stalled'), stalled] });
}

/** An Event, unless an equal one was written less than ten minutes ago. It is news, not work: a
 *  failure is logged, and nothing waits for it for long. */
async function recordEvent({ world, cluster, ledger: { told } }: Pass, story: Story) {
  const { reason, type, message } = story;
  const { namespace, name, uid } = cluster.meta;
  world.log(type === 'Normal' ? 'info' : 'warn', reason, { cluster: keyOf(cluster.meta), message });
  const now = world.now();
  const key = `${reason} ${message}`;
  for (const [old, at] of told) if (now - at >= LIMITS.earlyEndMs) told.delete(old);
  if (told.has(key)) return;
  told.set(key, now);
  const chance = digits(Math.floor(world.random() * BASE ** 4), 4);
  const at = timeText(now);
  const metadata = { name: `${name}.${digits(now, 9)}${chance}` };
  const { apiVersion, kind } = ownerOf(cluster);
  const involvedObject = { apiVersion, kind, name, namespace, uid };
  const said = { reason, type, message: message.slice(0, 1000), count: 1 };
  const when = { source: { component: 'statefulcluster' }, firstTimestamp: at, lastTimestamp: at };
  const body = { metadata, involvedObject, ...said, ...when };
  const path = `/api/v1/namespaces/${namespace}/events`;
  await call(world, { method: 'POST', path, body, timeoutMs: 2_000 }).catch((error: unknown) => {
    world.log('debug', 'Event not written', { error: wordsOf(error) });
  });
}

// ═══ 13 LEADER · effects ═════════════════════════════════════════════════════════════════════════
// Of all processes with one scope, one works at a time: the holder of a Lease. Times are counted on
// the own monotonic clock from what was seen here; nobody's wall clock is compared. A holder stops
// writing 5 s before another may begin; a standby sends requests for Leases only. Not handled: a
// suspended machine stops that clock too; a holder on it finds out at its next renewal.

/** With the namespace of the Lease, and who wants it: a name that no other process has. */
export type Elected = Options & { readonly lease: Record<'namespace' | 'identity', string> };
/** The scope of one operator: which StatefulClusters it works on. */
export type Share = Pick<Options, 'namespaces' | 'selector'>;
const leasesIn = (ns: string): string => `/apis/coordination.k8s.io/v1${inNamespace(ns)}/leases`;
const newElection = (world: World, share: Share, { namespace, identity }: Elected['lease']) => ({
  world,
  share,
  path: leasesIn(namespace),
  name: leaseName(share),
  identity,
  // By name, each as it was last seen to change, and the uptime from which it is no one's if it
  // does not change again. Also a deleted one: its holder will make it again.
  seen: new Map<string, Raw & { readonly freeAt: number }>(),
  until: -Infinity, // Uptime up to which this process leads.
  held: undefined as Raw | undefined, // The Lease as it was last written here.
});
type Election = ReturnType<typeof newElection>;
/** Equal scopes compete for one Lease; each part of a split has its own, named after it. */
export function leaseName({ namespaces, selector }: Share): string {
  if (namespaces.length === 0 && selector === '') return 'statefulcluster';
  const text = canonicalJson([unique(namespaces).sort(), selector]);
  const hash = createHash('sha256').update(text).digest();
  return `statefulcluster-${digits(hash.readUIntBE(0, 6), 10)}`;
}
/** May one cluster be in both? If both have a selector and these differ, users see to that. */
export function overlaps(a: Share, b: Share): boolean {
  const all = a.namespaces.length === 0 || b.namespaces.length === 0;
  const apart = a.selector !== '' && b.selector !== '' && a.selector !== b.selector;
  return !apart && (all || a.namespaces.some((ns) => b.namespaces.includes(ns)));
}
/** The scope that a Lease records; without a record it is everything. */
function shareOf({ annotations }: Raw): Share {
  const { [MARK.namespaces]: names = '', [MARK.selector]: selector = '' } = dictOf(annotations);
  return { namespaces: names.split(',').filter(Boolean), selector };
}

/** `runOperator` while this process leads. Resolves after `signal`, when the Lease is released;
 *  rejects when leadership is lost, and then the process must end. */
export async function runElected(world: World, options: Elected, signal: AbortSignal) {
  const e = newElection(world, options, options.lease);
  await campaign(e, signal);
  const over = new AbortController();
  const keeping = keepLease(e, over.signal);
  const until = AbortSignal.any([signal, over.signal]);
  try {
    if (!signal.aborted) await Promise.race([runOperator(fenced(e), options, until), keeping]);
  } finally {
    over.abort(); // The failure of `keeping` was thrown above.
    await Promise.race([keeping, world.sleep(BOUNDS.releaseMaxMs)]).catch(() => undefined);
  }
}
const leftMs = (e: Election): number => Math.floor(e.until - e.world.uptime());
const leads = (e: Election): boolean => leftMs(e) > 0;
/** The World of a leader: no write leaves, or is waited for, once another may soon begin. */
const fenced = (e: Election): World => ({
  ...e.world,
  send: async (request) => {
    if (request.method === 'GET') return e.world.send(request);
    if (!leads(e)) throw new Error(`not sent: the Lease ${e.name} was not renewed in time`);
    const { timeoutMs = BOUNDS.requestMs } = request;
    return e.world.send({ ...request, timeoutMs: Math.min(timeoutMs, leftMs(e)) });
  },
});

/** Resolves when this process leads, or shall not any more. It looks around before it takes the
 *  Lease and after: of two newcomers with overlapping scopes at least one sees the other, and steps
 *  back. If both do, chance decides who is back first. */
async function campaign(e: Election, signal: AbortSignal): Promise<void> {
  const { world, name: lease } = e;
  for (let [tries, logged] = [0, '']; !signal.aborted; tries++) {
    try {
      const why = (await tryLease(e)) || (await lookAround(e));
      if (why === '' && leads(e)) return world.log('info', 'leads', { lease });
      if (why !== logged) world.log('info', 'stands by', { lease, why: (logged = why) });
      if (leads(e)) await world.sleep(world.random() * BOUNDS.leaseRetryMs, signal);
      await release(e);
    } catch (error) {
      // A right that is missing from the start is not waited for.
      if (!(error instanceof ApiError) || (tries === 0 && isRefusal(error))) throw error;
      world.log('warn', 'the Lease cannot be had', { lease, error: wordsOf(error) });
    }
    const freeInMs = (e.seen.get(lease)?.freeAt ?? 0) - world.uptime();
    await world.sleep(Math.min(freeInMs > 0 ? freeInMs : Infinity, BOUNDS.leaseRetryMs), signal);
  }
}
/** Renews until `over`, then releases. Throws when this process does not lead any more. */
async function keepLease(e: Election, over: AbortSignal): Promise<void> {
  const renew = async (old?: Raw) => (leads(e) ? tryLease(e, old) : 'it was not renewed in time');
  for (;;) {
    await e.world.sleep(Math.max(0, Math.min(BOUNDS.leaseRetryMs, leftMs(e))), over);
    if (over.aborted) return release(e);
    const why = await renew(e.held).catch(() => renew().catch(wordsOf)); // It may be edited.
    if (!leads(e)) throw new Error(`lost the Lease ${e.name}: ${why}`);
    if (why) e.world.log('warn', 'the Lease was not renewed', { error: why });
  }
}
/** The next one may begin at once: what was in flight has ended, or ends with this process. */
async function release(e: Election): Promise<void> {
  const [found] = leads(e) ? await look(e) : [];
  e.until = -Infinity;
  if (found?.['spec']?.holderIdentity === e.identity) await write(e, found, '');
}

/** Takes or renews the Lease; says why not, if somebody else may work on this scope. */
async function tryLease(e: Election, known?: Raw): Promise<string> {
  const at = e.world.uptime(); // Whoever sees this renewal sees it later.
  const [found] = known ? [known] : await look(e); // By its name: it may have lost its label.
  const why = rivalOf(e) || (found && leads(e) ? '' : await lookAround(e));
  if (why === '') e.held = await write(e, found, e.identity);
  e.until = why ? -Infinity : at + BOUNDS.renewMaxMs;
  return why;
}
/** Reads the Lease of this path, or those of a list, and remembers when each changed. */
async function look(e: Election, path = `${e.path}/${e.name}`): Promise<readonly Raw[]> {
  const found = await ask(e, { method: 'GET', path }).catch((error: unknown) => {
    return isGone(error) ? { items: [] } : Promise.reject(error);
  });
  const leases: readonly Raw[] = found['items'] ?? [found];
  for (const { metadata, spec = {} } of leases) {
    if (isDeepStrictEqual(e.seen.get(metadata.name)?.['spec'], spec)) continue;
    const freeAt = e.world.uptime() + 1000 * (spec.leaseDurationSeconds ?? 0);
    e.seen.set(metadata.name, { metadata, spec, freeAt });
  }
  return leases;
}
/** Reads all Leases that may be of overlapping scopes; says who works on this one. */
const lookAround = (e: Election): Promise<string> =>
  look(e, withQuery(e.path, { labelSelector: selectorText(LEASES) })).then(() => rivalOf(e));
/** Who else works, or may work, on this scope, of all that were seen; '' if nobody. */
function rivalOf(e: Election): string {
  for (const [name, { metadata, spec, freeAt }] of e.seen) {
    const { holderIdentity: holder = '' } = spec;
    if (['', e.identity].includes(holder) || e.world.uptime() >= freeAt) continue;
    if (name === e.name) return `${holder} holds it`;
    if (overlaps(e.share, shareOf(metadata)))
      return `${holder} works on an overlapping scope: see the Lease ${name}`;
  }
  return '';
}

const LEASES = { matchLabels: { 'app.kubernetes.io/name': 'statefulcluster' } };
/** Lands only on the version that was read: of two candidates one gets a conflict. */
function write(e: Election, found: Raw | undefined, holderIdentity: string): Promise<Raw> {
  const { metadata, spec = {} } = found ?? {};
  const { namespaces, selector } = e.share;
  const scope = { [MARK.namespaces]: namespaces.join(), [MARK.selector]: selector };
  const labels = { ...metadata?.labels, ...LEASES.matchLabels };
  const annotations = { ...metadata?.annotations, ...scope };
  const meta = { ...metadata, name: e.name, labels, annotations };
  const renewTime = new Date(e.world.now()).toISOString().replace('Z', '000Z');
  const leaseTransitions = (spec.leaseTransitions ?? -1) + 1;
  const isTaken = !['', spec.holderIdentity].includes(holderIdentity);
  const turn = isTaken && { acquireTime: renewTime, leaseTransitions };
  const own = { holderIdentity, leaseDurationSeconds: BOUNDS.leaseMs / 1000, renewTime };
  const body = { metadata: meta, spec: { ...spec, ...turn, ...own } };
  if (!found) return ask(e, { method: 'POST', path: e.path, body });
  return ask(e, { method: 'PUT', path: `${e.path}/${e.name}`, body });
}
/** A holder asks no longer than it leads; half of that leaves time for a second try. */
function ask(e: Election, request: ApiRequest): Promise<Raw> {
  const timeoutMs = Math.min(BOUNDS.renewMaxMs / 2, leads(e) ? leftMs(e) : Infinity);
  return call(e.world, { ...request, timeoutMs });
}

// ═══ 14 PROBES · effects ═════════════════════════════════════════════════════════════════════════
// /healthz, /readyz and /metrics over plain HTTP. They tell what passed through World and what
// CONTROLLER said; nothing is read from the API server for them, and no decision rests on them.
// What alerts need carries a cluster's name, some twenty series each; none carries a member's.

/** Every metric: its type and what it says. */
export const METRICS = {
  statefulcluster_build_info: ['gauge', 'Always 1; its label is the version.'],
  statefulcluster_leader: ['gauge', '1 while this process works, 0 while it stands by.'],
  statefulcluster_reconciles_total: ['counter', 'Passes over one cluster, by result.'],
  statefulcluster_reconcile_duration_seconds: ['histogram', 'Duration of a pass.'],
  statefulcluster_queue_depth: ['gauge', 'Clusters that wait for a pass.'],
  statefulcluster_members: ['gauge', 'Members of a cluster, by health as in its status.'],
  statefulcluster_condition: ['gauge', '1 where a condition of a cluster is True, else 0.'],
  statefulcluster_retired_claims: ['gauge', 'Claims kept of identities that are over.'],
  statefulcluster_replacements_total: ['counter', 'Members that were replaced, by Reason.'],
  statefulcluster_api_requests_total: ['counter', 'API requests, by verb and status code.'],
  statefulcluster_api_request_duration_seconds: ['histogram', 'Duration of requests, by verb.'],
  process_resident_memory_bytes: ['gauge', 'Resident memory.'],
} as const;
type Metric = keyof typeof METRICS;
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, Infinity];

/** What the pages are made of. Others only add to it. */
export const newVitals = (world: World) => ({
  world,
  series: new Map<string, number>(), // A metric with its labels → value.
  watches: new Map<string, { newsAt: number; signAt: number }>(), // By path; uptimes.
  // By cluster, of the last pass: its status, and the states of all members, which that cuts.
  sights: new Map<string, Pick<Status, 'conditions' | 'retiredClaims'> & { states: State[] }>(),
  phase: 'standby' as 'standby' | 'syncing' | 'synced',
  depth: () => 0,
});
export type Vitals = ReturnType<typeof newVitals>;
/** Values are words of this program, and names: what JSON escapes beyond the format is in none. */
function count({ series }: Vitals, metric: Metric, labels: Dict, by = 1, suffix = ''): void {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  const key = metric + suffix + (pairs.length > 0 ? `{${pairs.join()}}` : '');
  series.set(key, (series.get(key) ?? 0) + by);
}
/** Into a histogram. */
export function time(v: Vitals, metric: Metric, labels: Dict, ms: number): void {
  for (const edge of BUCKETS) {
    const le = String(edge).replace('Infinity', '+Inf');
    count(v, metric, { ...labels, le }, ms <= 1000 * edge ? 1 : 0, '_bucket');
  }
  count(v, metric, labels, ms / 1000, '_sum');
  count(v, metric, labels, 1, '_count');
}

/** The same World, and what passes through it is counted. */
export function measured(v: Vitals): World {
  const { world, watches } = v;
  const counted = async (verb: string, path: string, ask: () => Promise<ApiResponse>) => {
    const at = world.uptime();
    const watch = watches.get(path);
    if (watch && ['GET', 'WATCH'].includes(verb)) watch.signAt = at; // It is listed, or watched.
    const answer = ask();
    const code = await answer.then(({ status }) => `${status}`).catch(() => 'none');
    count(v, 'statefulcluster_api_requests_total', { verb, code });
    const ms = world.uptime() - at;
    if (verb !== 'WATCH') time(v, 'statefulcluster_api_request_duration_seconds', { verb }, ms);
    return answer;
  };
  const bare = (path: string): string => path.split('?')[0] ?? '';
  return {
    ...world,
    send: (request) => counted(request.method, bare(request.path), () => world.send(request)),
    watch(path, on, signal) {
      const watch = watches.get(bare(path)) ?? { newsAt: world.uptime(), signAt: 0 };
      watches.set(bare(path), watch);
      const hear = (event: WatchEvent): void => {
        watch.newsAt = watch.signAt = world.uptime();
        on(event);
      };
      return counted('WATCH', bare(path), () => world.watch(path, hear, signal));
    },
  };
}
/** The text format 0.0.4 of Prometheus. What is not counted when it happens is read off now: no
 *  series is left of what is over. Known labels begin at 0: so a rate sees their first step. */
export function metricsText(vitals: Vitals): string {
  const v = { ...vitals, series: new Map(vitals.series) };
  count(v, 'statefulcluster_build_info', { version: VERSION });
  count(v, 'statefulcluster_leader', {}, Number(v.phase !== 'standby'));
  count(v, 'statefulcluster_queue_depth', {}, v.depth());
  count(v, 'process_resident_memory_bytes', {}, process.memoryUsage.rss());
  for (const result of ['success', 'error'])
    count(v, 'statefulcluster_reconciles_total', { result }, 0);
  for (const reason of Object.keys(ENDS))
    count(v, 'statefulcluster_replacements_total', { reason }, 0);
  for (const [key, { states, conditions, retiredClaims }] of v.sights) {
    const [namespace = '', name = ''] = key.split('/');
    for (const health of states) count(v, 'statefulcluster_members', { namespace, name, health });
    for (const { type, status } of conditions)
      count(v, 'statefulcluster_condition', { namespace, name, type }, Number(status === 'True'));
    count(v, 'statefulcluster_retired_claims', { namespace, name }, retiredClaims);
  }
  let text = '';
  for (const [name, [type, help]] of Object.entries(METRICS)) {
    text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
    for (const [key, value] of v.series) if (key.startsWith(name)) text += `${key} ${value}\n`;
  }
  return text;
}

/** Status and text of one page. /healthz: should this process be started anew? A server that is
 *  away is no reason: a watch that cannot be opened is opened again, which is a sign too. */
export function pageOf(v: Vitals, path: string): readonly [status: number, text: string] {
  const now = v.world.uptime();
  const silent = [...v.watches].find(([, { signAt }]) => now - signAt > BOUNDS.silenceMaxMs);
  const ages = [...v.watches].map(([watch, { newsAt }]) => {
    return `${watch}: last event or bookmark ${Math.floor((now - newsAt) / 1000)} s ago\n`;
  });
  if (path === '/metrics') return [200, metricsText(v)];
  const words = `no sign of the watch ${silent?.[0]} for ${BOUNDS.silenceMaxMs / 1000} s\n`;
  if (path === '/healthz') return silent ? [500, words] : [200, 'ok\n'];
  if (path !== '/readyz') return [404, 'there are /healthz, /readyz and /metrics\n'];
  if (v.phase === 'standby') return [200, 'standby\n'];
  if (v.phase === 'synced') return [200, `leader\n${ages.join('')}`];
  return [503, `leader, the caches are not synced\n${ages.join('')}`];
}

/** Serves the pages on [HOST]:PORT until aborted. Whoever holds connections open and asks nothing
 *  keeps nobody out: beyond the limit the oldest goes. */
async function servePages(v: Vitals, flag: string, address: string, signal: AbortSignal) {
  const http = process.getBuiltinModule('node:http'); // Not needed by `version`.
  const server = http.createServer((request, response) => {
    const [status, body] = pageOf(v, request.url?.split('?')[0] ?? '');
    const type = 'text/plain; version=0.0.4; charset=utf-8';
    response.writeHead(status, { 'content-type': type }).end(body);
  });
  server.headersTimeout = server.requestTimeout = server.keepAliveTimeout = 5000;
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket.once('close', () => sockets.delete(socket)));
    if (sockets.size > BOUNDS.probersMax) [...sockets][0]?.destroy();
  });
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`--${flag}: ${error.message}`)));
    server.listen({ host, port: Number(port), signal }, resolve);
  });
  v.world.log('info', 'listens', { flag, ...(server.address() as net.AddressInfo) });
}

// ═══ 15 CLI · effects ════════════════════════════════════════════════════════════════════════════
// Words in, words out: the only room that knows the terminal. Wrong use is one line and exit code
// 2, what cannot be done one line and exit code 1. Control characters of others are escaped.

const VERSION = process.env['STATEFULCLUSTER_VERSION'] ?? '0.0.0-dev'; // Set by build.mjs.
const { bold, gray, red, yellow, green, cyan, magenta } = kleur;
class UsageError extends Error {}
/** What comes after a command: words, and its flags ('true' for bare ones). */
type Asked = { readonly names: readonly string[]; readonly flags: Dict };
const unicode = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
/** Control characters, and those that turn the direction of writing, as JSON escapes them. */
const escaped = (text: string): string =>
  text.replace(/[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, unicode);
/** The same for every text in an object that is shown, and never written back. */
const tamed = (raw: Raw): Raw =>
  JSON.parse(JSON.stringify(raw), (_, v) => (typeof v === 'string' ? escaped(v) : v));

/** What is honoured of a kubeconfig, some with its form; all else is refused by its name. */
const HONOURED: Dict = {
  cluster: `server certificate-authority=FILE certificate-authority-data insecure-skip-tls-verify
    tls-server-name proxy-url=(https?|socks5h?)://.* disable-compression extensions`,
  user: `client-certificate=FILE client-certificate-data client-key=FILE client-key-data token
    tokenFile=FILE username password as as-uid as-groups exec extensions`,
  context: 'cluster user namespace extensions',
  exec: `apiVersion=client.authentication.k8s.io/v1(beta1)? command args env installHint
    interactiveMode=Never|IfAvailable provideClusterInfo`,
};
/** One part of a kubeconfig in `folder`, with absolute paths. Data goes before a file. */
function partOf(kind: string, part: Raw, folder: string): Raw {
  const whole: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(part)) {
    if (!value || part[`${name}-data`]) continue;
    const known = HONOURED[kind]?.split(/\s+/).find((one) => one.split('=')[0] === name);
    const [, form = '[^]*'] = known?.split('=') ?? [];
    const isPath = form === 'FILE' || (name === 'command' && value.includes(sep));
    if (!known || !(isPath || RegExp(`^(${form})$`).test(value)))
      throw new Error(`kubeconfig: ${kind}: ${name} is not supported${known ? `: ${value}` : ''}`);
    whole[name] = isPath ? resolve(folder, value) : value;
    if (name === 'exec') whole[name] = partOf(name, { apiVersion: 'none', ...value }, folder);
  }
  return whole;
}
/** Runs a plugin for credentials as client-go does, but never at the terminal. */
async function askPlugin(exec: Raw, cluster: Raw): Promise<Raw> {
  const { apiVersion, command, args = [], env = [], provideClusterInfo } = exec;
  const { 'certificate-authority': file, extensions = [], ...plain } = cluster;
  const key = 'client.authentication.k8s.io/exec';
  const config = extensions.find(({ name }: Raw) => name === key)?.extension;
  const data = file && { 'certificate-authority-data': readFileSync(file, 'base64') };
  const spec = { interactive: false, cluster: provideClusterInfo && { ...plain, ...data, config } };
  const given = Object.fromEntries(env.map(({ name, value }: Raw) => [name, value]));
  given.KUBERNETES_EXEC_INFO = JSON.stringify({ apiVersion, kind: 'ExecCredential', spec });
  const { execFile } = process.getBuiltinModule('node:child_process');
  const timeout = BOUNDS.pluginMs;
  const options = { env: { ...process.env, ...given }, timeout, killSignal: 'SIGKILL' } as const;
  try {
    const running = promisify(execFile)(command, args, options);
    running.child.stdin?.end();
    const { apiVersion: version, status = {} } = JSON.parse((await running).stdout) as Raw;
    if (version === apiVersion) return status;
    throw new Error(`it answered in ${version}, not in ${apiVersion}`);
  } catch (error) {
    const { killed, stderr } = error as { killed?: boolean; stderr?: string };
    const words = stderr?.trim().split('\n').at(-1) || wordsOf(error);
    const why = killed ? `no answer within ${timeout} ms` : words;
    throw new Error(`the plugin ${command} failed: ${why}`);
  }
}
/** HTTPS_PROXY, HTTP_PROXY and NO_PROXY as Go reads them: an entry is `*`, a domain with all below
 *  it (only that, with a dot before), an address or a CIDR, each perhaps with a port. */
export function proxyOf({ protocol, hostname, port }: URL, env: NodeJS.ProcessEnv) {
  const { BlockList, isIP } = process.getBuiltinModule('node:net');
  const valueOf = (name: string): string => env[name] || env[name.toLowerCase()] || '';
  const [way, usual] = protocol === 'http:' ? ['HTTP_PROXY', '80'] : ['HTTPS_PROXY', '443'];
  const family = (ip: string) => (isIP(ip) === 6 ? 'ipv6' : 'ipv4');
  const host = hostname.replace(/^\[|\]$/g, '');
  const isDirect = (entry: string): boolean => {
    const [ip = '', bits] = entry.split('/');
    const subnet = new BlockList();
    if (bits) subnet.addSubnet(ip, Number(bits), family(ip));
    if (entry === host || (isIP(host) && subnet.check(host, family(host)))) return true;
    const [, name = '', at] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? [];
    if (at && at !== (port || usual)) return false;
    return ['*', hostname].includes(name) || hostname.endsWith(`.${name.replace(/^\*?\./, '')}`);
  };
  const entries = `localhost 127.0.0.0/8 ::1 ${valueOf('NO_PROXY')}`.toLowerCase();
  const proxy = valueOf(way);
  if (proxy === '' || entries.split(/[\s,]+/).some(isDirect)) return undefined;
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}
/** A server and who asks it, both in the words of a kubeconfig. */
export function newConfig(cluster: Raw, user: Raw, namespace = 'default', isPod = false) {
  const { server, 'proxy-url': proxy = proxyOf(new URL(server), process.env) } = cluster;
  const { exec, tokenFile, username, password, as, 'as-uid': uid, 'as-groups': groups } = user;
  let kept: Raw = exec ? { expirationTimestamp: '1970' } : {}; // What the plugin answered last.
  const read = (part: Raw, name: string): Buffer | undefined => {
    const { [`${name}-data`]: data, [name]: file } = part;
    return data ? Buffer.from(data, 'base64') : file && readFileSync(file);
  };
  /** Files are read anew each time. */
  async function credentials() {
    if (Date.parse(kept['expirationTimestamp']) < Date.now()) kept = await askPlugin(exec, cluster);
    const given = kept['token'] ?? user['token'];
    const token = tokenFile ? readFileSync(tokenFile, 'utf8').trim() : given;
    const basic = Buffer.from(`${username}:${password}`).toString('base64');
    const authorization = token ? `Bearer ${token}` : username && `Basic ${basic}`;
    const acts = { 'impersonate-user': as, 'impersonate-uid': uid, 'impersonate-group': groups };
    const tls = {
      ca: read(cluster, 'certificate-authority'),
      cert: kept['clientCertificateData'] ?? read(user, 'client-certificate'),
      key: kept['clientKeyData'] ?? read(user, 'client-key'),
      servername: cluster['tls-server-name'],
      rejectUnauthorized: !cluster['insecure-skip-tls-verify'],
    };
    return { headers: { authorization, ...acts } as Dict, tls, proxy };
  }
  return { server, namespace, isPod, credentials };
}
export type Config = ReturnType<typeof newConfig>;
const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
/** Reads kubeconfigs as kubectl does: of equal names the first counts; a file that is empty, or one
 *  of $KUBECONFIG that is missing, is none. Where there is nothing, it is the pod's account. */
export async function loadConfig(file?: string, context?: string): Promise<Config> {
  const { loadAllYaml } = await import('@kubernetes/client-node'); // Not for `version`.
  const { KUBECONFIG, KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = process.env;
  const usual = (KUBECONFIG || join(homedir(), '.kube/config')).split(delimiter);
  const where = file ?? (KUBECONFIG || 'the default kubeconfig');
  const files = (file ? [file] : usual.filter((path) => existsSync(path))).map((path): Raw => {
    try {
      return { folder: dirname(resolve(path)), ...loadAllYaml(readFileSync(path, 'utf8'))[0] };
    } catch (error) {
      throw new Error(`cannot read ${path}: ${wordsOf(error)}`);
    }
  });
  const isNone = !file && !context && files.every((raw) => !raw['clusters']);
  if (isNone && host && existsSync(`${ACCOUNT}/token`)) {
    const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
    const cluster = { server, 'certificate-authority': `${ACCOUNT}/ca.crt` };
    const own = readFileSync(`${ACCOUNT}/namespace`, 'utf8');
    return newConfig(cluster, { tokenFile: `${ACCOUNT}/token` }, own, true);
  }
  const find = (kind: string, name = ''): Raw => {
    const named = (raw: Raw) => raw[`${kind}s`]?.find((one: Raw) => one['name'] === name);
    const raw = files.find(named);
    if (name && !raw) throw new Error(`${where} has no ${kind} "${name}"`);
    return raw ? partOf(kind, named(raw)[kind] ?? {}, raw['folder']) : {};
  };
  const name = context ?? files.find((raw) => raw['current-context'])?.['current-context'];
  const chosen = find('context', name);
  const [cluster, user] = [find('cluster', chosen['cluster']), find('user', chosen['user'])];
  if (!URL.canParse(`${cluster['server']}`))
    throw new Error(`${where} names no cluster with a URL: set --kubeconfig or --context`);
  const { as, 'as-uid': uid, 'as-groups': groups } = user;
  if (!as && (uid || groups)) throw new Error('kubeconfig: user: as-uid or as-groups without as');
  const authority = cluster['certificate-authority'] ?? cluster['certificate-authority-data'];
  if (authority && cluster['insecure-skip-tls-verify'])
    throw new Error('kubeconfig: cluster: insecure beside an authority');
  const isPlain = cluster['server'].startsWith('http:'); // It carries nobody's credentials.
  const asker = isPlain ? { as, 'as-uid': uid, 'as-groups': groups } : user;
  return newConfig(cluster, asker, chosen['namespace']);
}

function logger(format: string): World['log'] {
  const paint = { debug: gray, info: green, warn: yellow, error: red };
  return (level, message, fields = {}) => {
    if (level === 'debug') return;
    const time = new Date().toISOString();
    if (format === 'json')
      return console.log(escaped(JSON.stringify({ time, level, msg: message, ...fields })));
    const isPlain = (name: string): boolean => ['cluster', 'message'].includes(name);
    const words = Object.entries(fields).map(([k, v]) => (isPlain(k) ? `${v}` : `${k}=${v}`));
    const head = paint[level](escaped(message).padEnd(16));
    console.log(`${gray(time.slice(11, 19))} ${head} ${escaped(words.join(' '))}`);
  };
}

export const realWorld = (config: Config, log: World['log'], reload = async () => config) => ({
  now: () => Date.now(),
  uptime: () => performance.now(),
  random: () => Math.random(),
  sleep: (ms: number, signal?: AbortSignal) =>
    delay(Math.min(ms, 2 ** 31 - 1), undefined, { signal }).catch(() => undefined), // Aborted.
  ...connect(config, reload),
  log,
});
/** call(), and an error says what the person at the terminal can mend. */
const api = (world: World, request: ApiRequest): Promise<Raw> =>
  call(world, request).catch((error: ApiError) => {
    const { code, reason, message } = error;
    const isKind = request.path.startsWith('/apis/enge.me/') && !/".*" not found$/.test(message);
    if (reason === 'NoAnswer') error.message = `the API server cannot be reached: ${message}`;
    if (code === 404 && isKind)
      error.message = 'the API server does not know StatefulCluster: kubectl apply -f deploy.yaml';
    throw error;
  });
const get = (world: World, path: string, query = {}): Promise<Raw> =>
  api(world, { method: 'GET', path: withQuery(path, query) });
/** One look at each kind, so that a wrong server, a missing CRD or right is one clear line. */
async function preflight(world: World, { namespaces, selector }: Options): Promise<void> {
  for (const ns of namespaces.length > 0 ? namespaces : [''])
    for (const kind of [CLUSTERS, PODS, CLAIMS, REVISIONS] as const)
      await get(world, pathOf(kind, ns), { labelSelector: selector, limit: 1 });
}
const load = ({ kubeconfig, context }: Dict) => loadConfig(kubeconfig, context);
async function run({ flags }: Asked): Promise<void> {
  const { namespace, selector = '', 'all-namespaces': isAll } = flags;
  if (isAll && namespace) throw new UsageError('-A and -n exclude each other');
  const format = flags['log'] ?? (process.stdout.isTTY ? 'pretty' : 'json');
  const config = await load(flags);
  const { server, namespace: own, isPod } = config;
  const asked = namespace ?? process.env['WATCH_NAMESPACE'] ?? own;
  const namespaces = unique((isAll ? '' : asked).split(',').filter(Boolean));
  const log = logger(format);
  const vitals = newVitals(realWorld(config, log, () => load(flags)));
  const world = measured(vitals);
  const options = { namespaces, workers: Number(flags['workers'] ?? 4), selector, vitals };
  // Else what a list leaves behind stays resident: 195 MB with 10,000 pods, instead of 124.
  process.getBuiltinModule('node:v8').setFlagsFromString('--semi-space-growth-factor=1');
  const stop = new AbortController();
  const pages: Dict = { 'probe-addr': ':8080', 'metrics-addr': '0', ...flags };
  for (const flag of ['probe-addr', 'metrics-addr'])
    if (pages[flag] !== '0') await servePages(vitals, flag, `${pages[flag]}`, stop.signal);
  if (!isPod) await preflight(world, options); // In a pod what is not there yet is waited for.
  process.stdout.on('error', () => stop.abort()); // Whoever read the log is gone.
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stop.abort());
  log('info', 'starts', { version: VERSION, server, namespaces: namespaces.join(',') || 'all' });
  // From outside the Lease is where another operator's is: so they notice each other.
  const other = isPod ? own : (await leaderOf(world, options)).namespace;
  const beside = flags['leader-elect-namespace'] ?? other ?? namespaces[0] ?? own;
  const identity = `${hostname()}_${digits(Math.floor(world.random() * BASE ** 10), 10)}`;
  const lease = { namespace: beside, identity };
  const work = flags['leader-elect'] === 'false' ? runOperator : runElected;
  await work(world, { ...options, lease }, stop.signal).catch((error: unknown) => {
    if (format === 'pretty') throw error;
    log('error', wordsOf(error)); // Whoever reads the log reads JSON.
    process.exitCode = 1;
  });
  if (process.exitCode === undefined) log('info', 'stopped');
}

// ── At the terminal ─────────────────────────────────────────────────────────────────────────────
const FULL = 'statefulcluster.enge.me';
const readerLeft = (): void => process.exit(0);
/** Colours pass; any other control character that came so far is escaped here. */
function say(text: string): void {
  process.stdout.off('error', readerLeft).on('error', readerLeft);
  const odd = /\x1b(?!\[\d+m)|[\0-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]/g;
  process.stdout.write(`${text.replace(odd, unicode)}\n`);
}
/** What the API server warns of, and watches that broke; the rest is the log of an operator. */
const warn: World['log'] = (level, message, { warning, error = '' } = {}) => {
  if (level === 'warn') console.error(escaped(`${message}: ${String(warning ?? error)}`));
};
async function show(raw: Raw, output = 'yaml'): Promise<void> {
  const json = JSON.stringify(raw, (key, v) => (key === 'managedFields' ? undefined : v), 2);
  const { dumpYaml } = await import('@kubernetes/client-node');
  say(output === 'json' ? json : dumpYaml(JSON.parse(json)).trimEnd());
}
/** The same with the place where it is answered, and its first word. */
async function placed({ names, flags }: Asked) {
  const config = await load(flags);
  const world = onServerClock(realWorld(config, warn, () => load(flags)));
  const ns = flags['all-namespaces'] ? '' : (flags['namespace'] ?? config.namespace);
  return { names, flags, world, ns, name: names[0] ?? '' };
}
type There = Awaited<ReturnType<typeof placed>>;
const getCluster = ({ world, ns, name }: There) => get(world, clusterPath(ns, name));
const BY = '?fieldManager=statefulcluster-cli';
function merge({ world, ns }: There, kind: Ref['kind'], name: string, metadata: Raw, spec?: Raw) {
  return api(world, { ...MERGE, path: pathOf(kind, ns, name) + BY, body: { metadata, spec } });
}
const itemsOf = async (world: World, path: string, matchLabels = {}): Promise<readonly Raw[]> =>
  (await get(world, path, { labelSelector: selectorText({ matchLabels }) }))['items'] ?? [];
/** The objects of a path, or the one that is named, every two seconds until `limitMs` is over. */
async function* seen({ world, name }: There, path: string, limitMs = Infinity) {
  const some = withQuery(path, { fieldSelector: name && `metadata.name=${name}` });
  const overAt = world.uptime() + limitMs;
  for (let leftMs = limitMs; leftMs > 0; leftMs = overAt - world.uptime()) {
    const say = (error: unknown) => world.log('warn', 'no answer', { error: wordsOf(error) });
    const found = await itemsOf(world, some).catch(say); // The next look may be answered.
    if (found) yield found;
    await world.sleep(Math.min(leftMs, BOUNDS.leaseRetryMs));
  }
}
/** Columns that a narrow terminal is spared, the first one first. */
const SPARE =
  'claims retired-claims replaced up-to-date ready age available revision pod node since';
const PROSE = 30; // Characters: a cell with more may wrap.
const widthOf = (text: string): number => [...stripVTControlCharacters(text)].length;
/** A table of `titles`, each perhaps with the name of another field (`title=field`), without
 *  columns that are empty or do not fit. '' without rows. */
function tableOf(rows: readonly Raw[], titles: string): string {
  const columns = new Map<string, readonly string[]>();
  for (const [title = '', field = title] of titles.split(' ').map((one) => one.split('='))) {
    const cells = rows.map((row) => String(row[field] ?? ''));
    const width = Math.max(...[title, ...cells].map(widthOf));
    const all = [gray(title.toUpperCase()), ...cells];
    const padded = all.map((cell) => cell + ' '.repeat(width - widthOf(cell)));
    if (cells.some(Boolean)) columns.set(title, padded);
  }
  const widths = () => [...columns.values()].map(([head = '']) => Math.min(widthOf(head), PROSE));
  const isWide = () => widths().reduce((sum, w) => sum + w + 2, -2) > process.stdout.columns;
  for (const title of SPARE.split(' ')) if (isWide()) columns.delete(title);
  const lines = ['', ...rows].map((_, i) => [...columns.values()].map((cells) => cells[i]));
  return lines.map((cells) => cells.join('  ').trimEnd()).join('\n');
}
/** Parts with a blank line between them, without the empty ones. */
const paragraphs = (...parts: readonly string[]): string => parts.filter(Boolean).join('\n\n');
const SECONDS: Readonly<Record<string, number>> = { d: 86_400, h: 3600, m: 60, s: 1 };
/** In the largest unit of which there are two. */
function ageText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [unit, size] = Object.entries(SECONDS).find(([, size]) => seconds >= 2 * size) ?? ['s', 1];
  return `${Math.floor(seconds / size)}${unit}`;
}
const sinceText = (at: string | undefined, now: number): string =>
  at ? ageText(now - Date.parse(at)) : '';

// ── status, plan ────────────────────────────────────────────────────────────────────────────────
/** How words look, the gravest first, and why a member is so, or what to do about it. */
type Look = readonly [words: string, glyph: string, paint: (text: string) => string, why?: string];
const LOOKS: readonly Look[] = [
  ['Withheld ReplacementWithheld', '▲', magenta, 'judged lost, but the brake holds it'],
  ['Stalled', '×', red],
  ['Unready', '▲', red, 'was Ready, and is not: see kubectl logs'],
  ['Pending Unseen', '○', yellow, 'no node yet'],
  ['Starting MembersUnavailable ClaimTemplatesDrifted', '◐', yellow, 'see kubectl describe pod'],
  ['Paused UpdatePaused', '‖', yellow],
  ['Returning', '↻', cyan, 'between two pods'],
  ['Updating', '↻', cyan, 'being updated in place'],
  ['Ready', '◕', green, 'Ready for less than minReadySeconds'],
  ['Retiring Terminating', '◌', gray, 'its identity is over'],
  ['Suspended', '‖', gray, 'until spec.suspend is false'],
  ['Available AllAvailable', '●', green],
];
const lookOf = (word: string): Look =>
  LOOKS.find(([words]) => words.split(' ').includes(word)) ?? ['', '◐', yellow];
const rankOf = (word: string): number => LOOKS.indexOf(lookOf(word));
/** A word with its glyph, which is a star where the locale is said not to be UTF-8. */
function painted(word: string): string {
  const { LC_ALL, LC_CTYPE, LANG } = process.env;
  const isUtf8 = /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || 'UTF-8');
  const [, glyph, paint] = lookOf(word);
  return paint(`${isUtf8 ? glyph : '*'} ${word}`);
}
const isObserved = ({ meta, status }: StatefulCluster): boolean =>
  status.observedGeneration === meta.generation;
/** What needs a person, else the reason of Ready. */
function stateIn(c: StatefulCluster): string {
  if (trueIn(c, 'ReplacementWithheld')) return 'Withheld';
  if (trueIn(c, 'Stalled')) return 'Stalled';
  if (isTerminating(c)) return 'Terminating';
  return isObserved(c) ? (conditionOf(c, 'Ready')?.reason ?? 'Starting') : 'Unseen';
}
function listText(all: readonly StatefulCluster[], ns: string, now: number): string {
  const sorted = all.toSorted((a, b) => rankOf(stateIn(a)) - rankOf(stateIn(b)));
  const rows = sorted.map((c) => {
    const live = `${c.status.replicas ?? 0}/${c.spec.replicas}`;
    const own = { live, state: painted(stateIn(c)), age: ageText(now - c.meta.createdMs) };
    return { ...c.meta, ...c.status, ...own, ...(ns && { namespace: '' }) };
  });
  const counts = 'ready=readyReplicas up-to-date=updatedReplicas available=availableReplicas';
  const sums = 'replaced=replacements retired-claims=retiredClaims';
  return tableOf(rows, `namespace name state live ${counts} ${sums} age`);
}
/** What a person must know of, the gravest first, and how far the cluster is. */
function conditionsText({ status: { conditions = [] } }: StatefulCluster, now: number): string {
  const calm = ['Available', 'Progressing', 'Reconciling'];
  const rows = conditions
    .filter(({ type, status }) => type === 'Ready' || (status === 'True' && !calm.includes(type)))
    .map((c) => ({ ...c, word: c.type === 'Ready' ? c.reason : c.type }))
    .sort((a, b) => rankOf(a.word) - rankOf(b.word) || (a.type < b.type ? 1 : -1))
    .map((c) => ({ ...c, type: painted(c.word), for: sinceText(c.lastTransitionTime, now) }));
  return tableOf(rows, 'condition=type reason for message');
}
function membersText({ status }: StatefulCluster, now: number): string {
  const { members = [], retired = [], replicas = 0, updateRevision } = status;
  const sorted = members.toSorted((a, b) => rankOf(a.health) - rankOf(b.health));
  const rows = sorted.map((m) => {
    const { health, identity } = m;
    const age = birthSecond(identity) < 0 ? '' : ageText(now - birthMs(identity));
    const isOld = !['', updateRevision].includes(m.revision);
    const revision = isOld ? yellow(`${m.revision} outdated`) : m.revision;
    const old = retired.find((r) => r.replacedBy === identity);
    const why = [m.reason, lookOf(health)[3], old && `replaced ${old.identity}`];
    const shown = { health: painted(health), identity: bold(identity), claims: m.claims.length };
    const since = sinceText(m.since, now);
    return { ...m, ...shown, age, revision, since, why: why.filter(Boolean).join('; ') };
  });
  const more = replicas > members.length ? `\nand ${replicas - members.length} more` : '';
  return tableOf(rows, 'health identity pod index age node revision claims since why') + more;
}
/** Identities that are over, and how to free or bring back what is left of them. */
function retiredText({ meta, status }: StatefulCluster, now: number): string {
  const { retired = [], retiredClaims = 0 } = status;
  const rows = retired.map((r) => ({ ...r, ago: sinceText(r.at, now), claims: r.claims.length }));
  const titles = 'over=identity ago reason replaced-by=replacedBy claims last-words=message';
  const kept = retired.find((r) => r.claims.length > 0)?.identity ?? 'IDENTITY';
  const hints = `${gray(`${retiredClaims} retired claims keep their data. To delete it for ever:`)}
kubectl delete pvc -n ${meta.namespace} -l ${MARK.cluster}=${meta.name},${MARK.retired}=true
${gray('To bring an identity back with its data:')}
statefulcluster restore -n ${meta.namespace} ${meta.name} ${kept}`;
  return paragraphs(tableOf(rows, titles), retiredClaims > 0 ? hints : '');
}
type Leader = { readonly words: string; readonly runs?: boolean; readonly namespace?: string };
/** Who works on a part of this, by the newest Lease of an overlapping scope, and where that lies.
 *  Whether somebody runs is left open where no Lease may be read. */
async function leaderOf(world: World, share: Share): Promise<Leader> {
  const look = (ns: string) =>
    itemsOf(world, leasesIn(ns), LEASES.matchLabels).catch(() => undefined);
  const found = await Promise.all(unique(['', ...share.namespaces, SYSTEM]).map(look));
  const leases = found.flatMap((list) => list ?? []).map(tamed);
  const ours = leases.filter(({ metadata }) => overlaps(share, shareOf(metadata)));
  const leaders = ours.map(({ metadata: { namespace }, spec = {} }) => {
    const { holderIdentity: holder, leaseDurationSeconds = 0, renewTime } = spec;
    const ms = world.now() - Date.parse(renewTime);
    const runs = Boolean(holder) && ms <= 1000 * leaseDurationSeconds;
    const [who, ago] = [holder || 'released', `${ageText(ms)} ago`];
    const way = `see kubectl get pods -n ${namespace}`;
    const words = runs ? `${who} leads, renewed ${ago}` : `nobody runs (${who}, ${ago}): ${way}`;
    return { namespace, runs, ms, words: `Operator: ${words}` };
  });
  leaders.sort((a, b) => Number(b.runs) - Number(a.runs) || a.ms - b.ms);
  const none = { runs: false, words: 'Operator: nobody runs yet: kubectl apply -f deploy.yaml' };
  return leaders[0] ?? (found[0] ? none : { words: 'Operator: not known, Leases may not be read' });
}
/** What `status` shows of clusters; of one that is named, all. */
async function pictureOf({ world, ns, name }: There, raws: readonly Raw[]): Promise<string> {
  const now = world.now();
  const { runs, words } = await leaderOf(world, { namespaces: ns ? [ns] : [], selector: '' });
  const all = raws.map((raw) => clusterOf(tamed(raw)));
  const what = `StatefulClusters${name && ` "${name}"`}${ns && ` in namespace ${ns}`}`;
  const list = listText(all, ns, now) || `There are no ${what}.`;
  const details = name ? all.map((c) => detailsOf(c, now)) : [];
  return paragraphs((runs === false ? red : gray)(words), list, ...details);
}
const detailsOf = (c: StatefulCluster, now: number): string =>
  paragraphs(...[conditionsText, membersText, retiredText].map((text) => text(c, now)));
async function status(at: There): Promise<void> {
  const { name, ns, flags } = at;
  if (name && !ns) throw new UsageError('NAME and -A exclude each other');
  const first = await getCluster(at);
  if (flags['output']) return show(first, flags['output']);
  if (!flags['watch']) return say(await pictureOf(at, name ? [first] : first['items']));
  const draws = process.stdout.isTTY && kleur.enabled;
  let shown: unknown; // On a terminal ages are drawn anew, too.
  for await (const raws of seen(at, clusterPath(ns))) {
    if (!draws && isDeepStrictEqual(raws, shown)) continue;
    shown = raws;
    const text = await pictureOf(at, raws);
    if (draws) process.stdout.write('\x1b[H\x1b[2J'); // In the place of the last picture.
    say(`${text}\n`);
    if (name && raws.length === 0) return;
  }
}
/** The operator's own decision, on a World that cannot write. Dry-runs are taken to succeed, and
 *  evidence to have been watched for a minute; refusals and earlier restarts are not known here. */
async function decideOnly({ world: real, ns, name }: There) {
  const isTaken = { status: 409, headers: {}, body: { reason: 'AlreadyExists' } };
  const send: World['send'] = async (r) => (r.method === 'GET' ? real.send(r) : isTaken);
  const world = { ...real, send };
  const options = { namespaces: [ns], selector: '', workers: 1 };
  await preflight(world, options);
  const o = newOperator(world, options, new AbortController().signal); // Its queue never starts.
  await Promise.all(startFeeds(o, options).map((feed) => feed.ready.promise));
  const key = `${ns}/${name}`;
  const cluster = o.scopes.get(ns)?.statefulclusters.items.get(key);
  if (!cluster) throw new Error(`${FULL} "${name}" not found`);
  const ledger = ledgerOf(o, key, cluster.meta.uid);
  const { p } = await decide(o, snapshotOf(o, cluster, ledger));
  for (const one of p.evidence) ledger.desk.seen.set(one, o.world.uptime() - LIMITS.trustMs);
  return decide(o, snapshotOf(o, cluster, ledger));
}
/** What would be done, in the words of its Events, and the status that the operator would write:
 *  what it waits for is there. New identities are drawn anew when they are made. */
async function showPlan(at: There): Promise<void> {
  const { s, p } = await decideOnly(at);
  const now = at.world.now();
  const c = { ...s.cluster, status: statusOf(s, p, now) };
  const deeds = tableOf(storiesOf(p.actions), 'reason event=message') || 'Nothing to do now.';
  const list = listText([c], at.ns, now);
  say(paragraphs(list, deeds, detailsOf(c, now), gray('Nothing was written.')));
}

// ── replace, restore ────────────────────────────────────────────────────────────────────────────
/** Pods, then claims, of the member that is called so, by identity or pod. */
async function partsOf({ world, ns }: There, called: string, of?: string) {
  const identity = called.slice(called.lastIndexOf('-') + 1);
  const parts = [];
  for (const kind of [PODS, CLAIMS] as const)
    for (const raw of await itemsOf(world, pathOf(kind, ns), { [MARK.identity]: identity })) {
      const meta = metaOf(raw);
      const owner = meta.labels[MARK.cluster] ?? '';
      const isMeant = [identity, podName(owner, identity)].includes(called);
      if (isMeant && (of ?? owner) === owner) parts.push({ kind, meta, owner });
    }
  const retired = parts.filter(({ meta }) => MARK.retired in meta.annotations);
  const [owner, another] = unique(parts.map((part) => part.owner));
  if (!owner) throw new Error(`no member is called "${called}"`);
  if (another) throw new Error(`${owner} and ${another} have a "${called}": name its pod`);
  return { identity, owner, parts, retired };
}
/** Where a policy deletes data, a terminal is asked, and elsewhere --yes is the only answer. */
async function replace(at: There): Promise<void> {
  const { identity, owner, parts, retired } = await partsOf(at, at.name);
  if (retired.length > 0) throw new Error(`${identity} of ${owner} is retired already`);
  const { spec } = clusterOf(await getCluster({ ...at, name: owner }));
  const deletes = spec.persistentVolumeClaimRetentionPolicy.whenReplaced === 'Delete';
  if (deletes && parts.some(({ kind }) => kind === CLAIMS) && !at.flags['yes']) {
    const loss = `${owner} deletes the data of ${identity} for ever (whenReplaced: Delete)`;
    if (!process.stdin.isTTY) throw new UsageError(`${loss}: say --yes`);
    process.stderr.write(`${escaped(loss)}. Go on? [y/N] `);
    const { value: answer } = await process.stdin.iterator().next();
    if (!/^y(es)?\s*$/i.test(`${answer}`)) throw new Error('nothing was changed');
  }
  const annotations = { [MARK.replace]: 'true' }; // On a claim they outlive the pod.
  for (const { kind, meta } of parts.slice(-1)) await merge(at, kind, meta.name, { annotations });
  say(`${owner} gives ${identity} up for a new member`);
}
async function restore(at: There): Promise<void> {
  const { name, names } = at;
  const { identity, retired } = await partsOf(at, names[1] ?? '', name);
  if (retired.length === 0) throw new Error(`${identity} of ${name} is not retired`);
  const annotations = { [MARK.restore]: 'true' };
  for (const { kind, meta } of retired) await merge(at, kind, meta.name, { annotations });
  say(`${identity} returns as the next member of ${name} that there is room for`);
}

// ── rollout, in kubectl's words, whose own `rollout` knows no custom kinds ──────────────────────
/** The cluster, its revisions, oldest first, and the one that is asked for. */
async function historyOf(at: There, asked?: string) {
  const raw = await getCluster(at);
  const all = await itemsOf(at.world, pathOf(REVISIONS, at.ns), { [MARK.cluster]: at.name });
  const own = all.map(revisionOf).filter(({ meta }) => isControlledBy(meta, metaOf(raw).uid));
  own.sort((a, b) => a.number - b.number);
  const found = own.find((r) => r.number === Number(asked));
  if (asked && !found) throw new Error(`unable to find specified revision ${asked} in history`);
  return { raw, own, found };
}
async function history(at: There): Promise<void> {
  const { own, found } = await historyOf(at, at.flags['revision']);
  const cause = ({ meta }: Revision) => escaped(meta.annotations[MARK.changeCause] ?? '-');
  const rows = own.map((r) => ({ revision: r.number, 'change-cause': cause(r) }));
  if (found) return show(found.template);
  say(tableOf(rows, 'revision change-cause') || 'No rollout history found.');
}
/** Puts the whole template with its cause back: a merge would keep what the newer one added. Lands
 *  only on the version that was looked at: no edit is lost. */
async function undo(at: There): Promise<void> {
  const { raw, own, found } = await historyOf(at, at.flags['to-revision']);
  const to = found ?? own.at(-2);
  if (!to) throw new Error('there is no earlier revision');
  const { metadata, spec } = raw;
  const cause = { [MARK.changeCause]: to.meta.annotations[MARK.changeCause] }; // Or none.
  const meta = { ...metadata, annotations: { ...metadata.annotations, ...cause } };
  const body = { ...raw, metadata: meta, spec: { ...spec, template: to.template } };
  await api(at.world, { method: 'PUT', path: clusterPath(at.ns, at.name) + BY, body });
  say(`${FULL}/${at.name} is at revision ${to.number}`);
}
const edit = (done: string, change: (at: There) => Raw) => async (at: There) => {
  await merge(at, CLUSTERS, at.name, {}, change(at));
  say(`${FULL}/${at.name} ${done}`);
};
const restart = edit('restarted', ({ world }) => {
  const annotations = { 'kubectl.kubernetes.io/restartedAt': timeText(world.now()) };
  return { template: { metadata: { annotations } } };
});
const pause = edit('paused', () => ({ updateStrategy: { rollingUpdate: { paused: true } } }));
const resume = edit('resumed', () => ({ updateStrategy: { rollingUpdate: { paused: false } } }));
/** What the operator says of a rollout that is not through, or ''. */
function waitsFor(c: StatefulCluster): string {
  if (!isObserved(c)) return 'the operator has not seen its spec yet';
  const said = [trueIn(c, 'ReplacementWithheld'), conditionOf(c, 'Ready')].map((o) => o?.message);
  return trueIn(c, 'Ready') ? '' : said.filter(Boolean).join('\n  ') || 'not Ready';
}
async function rolloutStatus(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const { spec } = clusterOf(await getCluster(at));
  if (spec.updateStrategy.type === 'OnDelete')
    throw new Error('rollout status is only available for RollingUpdate strategy type');
  const what = `${FULL} "${name}"`;
  const timeout = flags['timeout'] ?? '';
  const limitMs = 1000 * parseInt(timeout) * (SECONDS[timeout.slice(-1)] ?? 0) || Infinity;
  let [said, aloneAt] = ['', Infinity];
  for await (const [raw] of seen(at, clusterPath(ns), limitMs)) {
    if (!raw) throw new Error(`${what} was deleted`);
    const c = clusterOf(tamed(raw));
    const stalled = isObserved(c) && trueIn(c, 'Stalled');
    if (stalled) throw new Error(`${what} is stalled: ${stalled.message}`);
    const wait = waitsFor(c);
    const text = wait ? `Waiting for ${what}: ${wait}` : `${what} successfully rolled out`;
    if (text !== said) say((said = text));
    if (!wait) return;
    const { runs, words } = await leaderOf(world, { namespaces: [ns], selector: '' });
    aloneAt = runs === false ? Math.min(aloneAt, world.uptime()) : Infinity;
    if (world.uptime() - aloneAt >= BOUNDS.leaseMs) throw new Error(words);
  }
  throw new Error('timed out waiting for the condition');
}

// ── adopt: a StatefulSet becomes a StatefulCluster, and no pod is restarted ─────────────────────
// What is there says how far an earlier run came, and each step may be repeated.
const ADOPTS = 'enge.me/adopts'; // On the cluster: the UID of the set.
const SETS = 'statefulsets.apps';
const setPath = (ns: string): string => `/apis/apps/v1${inNamespace(ns)}/statefulsets`;

/** The cluster of a set: its fields have the names of ours, and the templates stay as they are. */
function clusterFrom({ metadata, spec }: Raw, annotations?: Dict): Raw {
  const { name, namespace, labels } = metadata;
  const start: number = spec.ordinals?.start ?? 0;
  const { rollingUpdate } = spec.updateStrategy ?? {};
  const partition = Math.max(0, (rollingUpdate?.partition ?? 0) - start);
  const readsIndex = JSON.stringify(spec.template).includes(`metadata.labels['${MARK.index}']`);
  return {
    apiVersion: 'enge.me/v1alpha1',
    kind: 'StatefulCluster',
    metadata: { name, namespace, labels, annotations },
    spec: {
      podManagementPolicy: 'OrderedReady', // What a StatefulSet has by default.
      ...spec,
      updateStrategy: { ...spec.updateStrategy, rollingUpdate: { ...rollingUpdate, partition } },
      replacementPolicy: 'WhenVolumesLost',
      ordinals: readsIndex ? { start } : undefined,
    },
  };
}
/** Annotations and labels of those who would make the set again: Helm, Argo CD, Flux. */
const KEEPERS = /helm\.sh\/|argoproj\.io\/|fluxcd\.io\//;
/** How scripts take a number out of a host name. */
const CUTS = /\$\{\w+##\*-\}|(hostname|pod_?name).*(\[0-9\]|\\d|:digit:|##|cut -d|-F ?['"]?-)/i;
/** A template, and the ConfigMaps that it mounts or reads, each with what it is called. */
async function textsOf({ world, ns }: There, template: Raw) {
  const named = /"configMap(?:KeyRef|Ref)?":\{.*?"name":"(.*?)"/g;
  const names = [...JSON.stringify(template).matchAll(named)].map(([, name = '']) => name);
  const maps = unique(names).map(async (name) => {
    const path = `/api/v1${inNamespace(ns)}/configmaps/${name}`;
    const unread = (error: unknown) => say(`ConfigMap ${name} is not looked at: ${wordsOf(error)}`);
    return [`its ConfigMap ${name}`, (await get(world, path).catch(unread))?.['data']] as const;
  });
  return [['it', template] as const, ...(await Promise.all(maps))];
}
/** Why this set cannot be adopted now, or ''. What images say is not seen. */
async function obstacleTo(at: There, { metadata, spec, status = {} }: Raw): Promise<string> {
  const { name, generation, ownerReferences: [owner] = [], labels, annotations } = metadata;
  const there = status.observedGeneration === generation ? (status.updatedReplicas ?? 0) : 0;
  if (there !== spec.replicas)
    return `${there} of its ${spec.replicas} pods are there at its newest revision: wait for all`;
  if (at.flags['force']) return '';
  const mark = Object.keys({ ...labels, ...annotations }).find((key) => KEEPERS.test(key));
  const keeper = owner?.kind ?? (mark && `who set ${mark}`);
  const doubts = (await textsOf(at, spec.template)).flatMap(([who, raw = '']) => {
    const lines = JSON.stringify(raw, null, 1).replaceAll('\\n', '\n').replaceAll('\\"', '"');
    return [
      RegExp(`\\b${name}-\\d+\\b|-0\\.[a-z$]`).test(lines) && `${who} names members by number`,
      CUTS.test(lines) && `${who} takes a number out of the host name`,
      lines.includes(`labels['${MARK.ordinalName}']`) && `${who} reads ${MARK.ordinalName}`,
    ];
  });
  const all = [keeper && `${keeper} would make it again`, ...doubts].filter(Boolean);
  return all.length > 0 ? `${all.join('; ')} (--force adopts it all the same)` : '';
}
/** What may name the set, or pods by their number, and must then be changed by hand. */
async function leftTo({ world, ns, name }: There, set: Raw): Promise<readonly string[]> {
  const index = clusterFrom(set)['spec'].ordinals ? '' : `|"${MARK.index}":`;
  const names = RegExp(`"${name}-\\d+"|"kind":"StatefulSet","name":"${name}"${index}`);
  const found: string[] = [];
  for (const [group, plural] of [
    ['/api/v1', 'services'],
    ['/apis/policy/v1', 'poddisruptionbudgets'],
    ['/apis/autoscaling/v2', 'horizontalpodautoscalers'],
  ])
    for (const raw of await itemsOf(world, `${group}${inNamespace(ns)}/${plural}`))
      if (names.test(JSON.stringify(raw['spec']))) found.push(`${plural}/${metaOf(raw).name}`);
  return found;
}
/** Deletes the set and leaves its pods and claims: the garbage collector frees them of it first. */
async function orphan(at: There, uid: string): Promise<void> {
  const { world, ns, name } = at;
  const body = { propagationPolicy: 'Orphan', preconditions: { uid } };
  await api(world, { method: 'DELETE', path: `${setPath(ns)}/${name}`, body });
  for await (const raws of seen(at, setPath(ns), BOUNDS.syncMaxMs))
    if (!raws.some((raw) => metaOf(raw).uid === uid)) return;
  throw new Error(`${SETS} "${name}" is still going: run this again once it is gone`);
}
/** Makes the cluster the controller of the pods that the set left, labels and seals their claims,
 *  and waits until the operator counts them all: only then may it act. */
async function handOver(at: There): Promise<void> {
  const { world, ns, name } = at;
  const cluster = clusterOf(await getCluster(at));
  const { meta, spec } = cluster;
  const wards = (await itemsOf(world, pathOf(PODS, ns))).map(podOf).filter((pod) => {
    const isFree = !hasController(pod.meta) || isControlledBy(pod.meta, meta.uid);
    const isOurs = selectorMatches(spec.selector, pod.meta.labels);
    return isFree && isOurs && /^\d+$/.test(identityOf(pod, name));
  });
  for (const pod of wards) {
    const identity = identityOf(pod, name);
    const own = { ...ourLabels(name, identity), ...(spec.ordinals && { [MARK.index]: identity }) };
    const claims = pod.claims.filter((claim) => claim.endsWith(`-${name}-${identity}`)).sort();
    const annotations = { [MARK.claims]: claims.join(' ') };
    for (const claim of claims) await merge(at, CLAIMS, claim, { labels: own, annotations });
    const ownerReferences = [...othersOf(pod, meta), ownerOf(cluster)];
    const labels = { ...own, [MARK.revision]: revisionHash(spec.template, 0) };
    const { resourceVersion } = pod.meta;
    await merge(at, PODS, pod.meta.name, { resourceVersion, ownerReferences, labels });
  }
  for await (const [raw] of seen(at, clusterPath(ns), BOUNDS.syncMaxMs))
    if (raw?.['status']?.updatedReplicas === wards.length) return;
  throw new Error(`the operator does not count all ${wards.length} pods: does it run? Try again`);
}
async function adopt(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const find = async (path: string) =>
    (await itemsOf(world, path)).find((raw) => metaOf(raw).name === name);
  const [set, old] = [await find(setPath(ns)), await find(clusterPath(ns))];
  const adopts = old?.['metadata'].annotations?.[ADOPTS];
  const uid = set ? metaOf(set).uid : adopts;
  if (!uid) throw new Error(`${SETS} "${name}" not found`);
  if (old && adopts !== uid) throw new Error(`there is a StatefulCluster "${name}" already`);
  if (set && flags['output']) return show(clusterFrom(set), flags['output']);
  const why = set && !metaOf(set).deletedMs ? await obstacleTo(at, set) : '';
  if (why) throw new Error(`${SETS} "${name}" cannot be adopted: ${why}`);
  const others = set ? await leftTo(at, set) : [];
  say(`${SETS}/${name} becomes ${FULL}/${name}, and no pod is restarted`);
  const [dryRun, how] = flags['dry-run'] ? ['&dryRun=All', 'would'] : ['', 'done:'];
  const step = async (words: string, run?: () => Promise<unknown>): Promise<void> => {
    if (!dryRun) await run?.();
    say(`  ${how} ${words}`);
  };
  const body = set && clusterFrom(set, { [MARK.paused]: 'true', [ADOPTS]: uid });
  // A dry run, too, tells what the API server has against it.
  if (!old) await api(world, { method: 'POST', path: clusterPath(ns) + BY + dryRun, body });
  await step('create the cluster, paused');
  await step('delete the set, but not its pods', set && (() => orphan(at, uid)));
  await step('make the cluster the controller of its pods', () => handOver(at));
  const annotations = { [MARK.paused]: null, [ADOPTS]: null };
  await step('let the operator act', () => merge(at, CLUSTERS, name, { annotations }));
  say('The history of the set is not taken over: its controllerrevisions stay as they are');
  const yours = '. What names the set, or a pod by its number, is yours to change:';
  say([`New members have random names${others[0] ? yours : ''}`, ...others].join('\n  '));
}

// ── The commands, and manifest ──────────────────────────────────────────────────────────────────
const SYSTEM = 'statefulcluster-system'; // The namespace that deploy.yaml names.
/** deploy.yaml, with the comments `# namespaced: …` in the place of what stands before them where
 *  the rights shall end at one namespace; which must exist, with labels of its owner's choice. */
function manifest({ flags }: Asked): void {
  const { image, namespace: ns, namespaced } = flags;
  if (namespaced && !ns) throw new UsageError('--namespaced needs -n: the one it works in and for');
  const built = process.env['STATEFULCLUSTER_MANIFEST']; // Set by build.mjs.
  let text = built ?? readFileSync(`${import.meta.dirname}/deploy.yaml`, 'utf8');
  const namespace = /^apiVersion: v1\nkind: Namespace\n[^]*?^---\n/m;
  if (namespaced) text = text.replace(namespace, '').replaceAll(/(\S+ )?# namespaced: /g, '');
  if (ns) text = text.replaceAll(SYSTEM, ns);
  if (image) text = text.replaceAll(/^( +(?:- )?image:) .*$/gm, `$1 ${image}`);
  // What follows is there as comments: its kinds are the Prometheus operator's.
  const [own = '', extra = ''] = text.split(/^# ═══ Monitoring[^]*?(?=^# apiVersion)/m);
  say((flags['monitoring'] ? extra.replaceAll(/^# ?/gm, '') : own).trimEnd());
}
const FLAGS = `
-w --watch                      look every two seconds, until Ctrl-C
-A --all-namespaces             clusters of all namespaces
-o --output json|yaml           the object as it is, or would be
   --revision N                 show the template of this revision
   --to-revision N              default: the one before the newest
   --timeout TIME               give up after 90s, 5m, 2h; default: never
-y --yes                        in spite of data that is deleted
   --dry-run                    say what would be done
   --force                      in spite of doubts
   --image IMAGE                in place of the released one
   --namespaced                 with rights in the namespace of -n only
   --monitoring                 PodMonitor, alerts and dashboard instead
   --selector LABELS            only StatefulClusters with these labels
   --workers N                  clusters worked on at a time (4)
   --leader-elect true|false    false where no other operator runs
   --leader-elect-namespace NS  of the Lease; default: the pod's, else of -n
   --probe-addr ADDR            [HOST]:PORT of probes (:8080; 0: none)
   --metrics-addr ADDR          one more, for metrics (0: none)
   --log json|pretty            default: pretty on a terminal
-n --namespace NS               default: the context's; run takes several
   --context NAME               of the kubeconfig; default: its current one
   --kubeconfig FILE            default: $KUBECONFIG or ~/.kube/config
-h --help                       print this`;
/** What the value of a flag must look like, by its word above. */
const FORMS: Dict = { N: '[1-9]\\d*', TIME: '\\d+[smh]', NS: '[-a-z0-9,]+', ADDR: '0|.*:\\d{1,5}' };
/** A name of an object, which may come with its kind, as kubectl has it. */
const KIND = String.raw`(?:stc|sts|po|pods?|stateful(?:cluster|set)s?)(?:\.[a-z.]+)?/`;
const NAME = `(?:${KIND})?([a-z0-9][-a-z0-9.]*)`;
/** A command with its words, what it does, and its flags beside those that all have. */
const COMMANDS = `
run: replace lost members, until stopped: all-namespaces selector workers leader-elect \
leader-elect-namespace probe-addr metrics-addr log
status [NAME]: who leads; the clusters, or one and its members: watch all-namespaces output
plan NAME: what the operator would do now, and why; reads only
replace POD|IDENTITY: give a member up for a new one: yes
restore NAME IDENTITY|POD: bring a retired identity back with its claims
rollout status NAME: wait until a rollout is through, or stalls: timeout
rollout history NAME: revisions of the template: revision
rollout undo NAME: go back to an earlier revision: to-revision
rollout restart NAME: restart every member, within the budget
rollout pause NAME: stop updates, not replacements
rollout resume NAME: go on with updates
adopt STATEFULSET: turn it into a StatefulCluster, no pod is restarted: dry-run output force
manifest: what installs the operator, for kubectl apply -f -: image namespaced monitoring
completion (bash|zsh): print what makes a shell complete these words
version: print the version
help [COMMAND] [WORD]: explain a command and its flags`;
type Acts<T> = Readonly<Record<string, (asked: T) => unknown>>;
const HERE: Acts<Asked> = { run, manifest, completion, version: () => say(VERSION), help };
const THERE: Acts<There> = { status, plan: showPlan, replace, restore, adopt };
const ROLLOUT: Acts<There> = { status: rolloutStatus, history, undo, restart, pause, resume };
const linesOf = (text: string): readonly string[] => text.slice(1).split('\n');
const flagList = linesOf(FLAGS).map((line) => {
  const [, short, flag = '', value] = /^(?:-(\w)|  ) --([a-z-]+)(?: (\S+))?  /.exec(line) ?? [];
  const type = value ? ('string' as const) : ('boolean' as const);
  const option = { type, multiple: flag === 'namespace', ...(short && { short }) };
  return { line: `  ${line}`, flag, value, option };
});
const commands = linesOf(COMMANDS).map((line) => {
  const [usage = '', about = '', own = ''] = line.split(': ');
  const [words = ''] = usage.split(/ [[(]|(?= [A-Z])/);
  const form = usage.replaceAll(/ (\[?)[A-Z|]+\]?/g, (_, open) => `(?: ${NAME})${open && '?'}`);
  const flags = [...own.split(' '), 'namespace', 'context', 'kubeconfig', 'help'];
  return { usage, words, form, about, takes: flagList.filter(({ flag }) => flags.includes(flag)) };
});
/** Are these words, but for one letter more, less or other, or two that changed places? */
function isSlip(words: string, typed: readonly string[]): boolean {
  const cuts = (w: string) => [w, ...[...w].map((_, i) => w.slice(0, i) + w.slice(i + 1))];
  const said = cuts(typed.slice(0, words.split(' ').length).join(' '));
  return cuts(words).some((cut) => said.includes(cut));
}
/** Explains the commands that begin so; one alone with its flags. */
function help({ names }: Pick<Asked, 'names'>): void {
  const some = commands.filter((c) => c.words.startsWith(names.join(' ')));
  const [one, another] = some;
  if (!one) {
    const near = commands.find(({ words }) => isSlip(words, names));
    const way = near ? `did you mean ${near.words}?` : `see statefulcluster help`;
    throw new UsageError(`there is no command "${names.join(' ')}": ${way}`);
  }
  const lines = one.takes.map(({ line }) => line);
  if (!another) return say(`statefulcluster ${one.usage}\n  ${one.about}\n\n${lines.join('\n')}`);
  const list = tableOf(some, 'command=usage what=about').replaceAll(/^/gm, '  ');
  say(`statefulcluster ${VERSION}: stateful pods whose identity is never re-used\n\n${list}\n`);
  say(`statefulcluster help COMMAND explains each with its flags.`);
}
/** For bash, and for zsh in the way of bash: commands, then flags and the names of clusters. */
function completion(): void {
  const rows = commands.map(({ usage, words, takes }) => {
    const names = usage.includes('NAME') ? ' $(kubectl get stc -o name 2>/dev/null)' : '';
    return `  '${words} '*) w="${takes.map(({ flag }) => `--${flag}`).join(' ')}${names}" ;;`;
  });
  say(`type complete >/dev/null 2>&1 || { autoload -U bashcompinit && bashcompinit; }
_statefulcluster() {
  local w; case "\${COMP_WORDS[*]:1:$COMP_CWORD-1} " in
${rows.join('\n')}
  'rollout '*) w='${Object.keys(ROLLOUT).join(' ')}' ;;
  *) w='${unique(commands.map(({ words }) => words.split(' ')[0])).join(' ')}' ;; esac
  COMPREPLY=($(compgen -W "$w" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _statefulcluster statefulcluster`);
}
/** Finds the command and its flags, wherever they stand, checks their form and runs it. */
async function obey(argv: readonly string[]): Promise<unknown> {
  const args = argv.map((arg) => (arg === '--version' ? 'version' : arg));
  const options = Object.fromEntries(flagList.map(({ flag, option }) => [flag, option]));
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const flags: Dict = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, `${v}`]));
  const text = positionals.join(' ');
  const command = commands.find((c) => `${text} `.startsWith(`${c.words} `));
  if (flags['help'] || !command) return help({ names: command?.words.split(' ') ?? positionals });
  const names = RegExp(`^${command.form}$`).exec(text)?.slice(1);
  if (!names) throw new UsageError(`usage: statefulcluster ${command.usage}`);
  for (const one of flagList.filter(({ flag }) => flag in flags)) {
    const { flag, line, value = '' } = one;
    const form = FORMS[value] ?? (value.includes('|') ? value : '.*');
    if (!command.takes.includes(one)) throw new UsageError(`"${command.words}" has no --${flag}`);
    if (!RegExp(`^(${form})$`).test(`${flags[flag]}`))
      throw new UsageError(`usage: ${line.trim().replaceAll(/ +/g, ' ')}`);
  }
  const asked = { names: names.filter(Boolean), flags };
  const [first = '', second = ''] = command.words.split(' ');
  const act = ROLLOUT[second] ?? THERE[first];
  return act ? act(await placed(asked)) : HERE[first]?.(asked);
}

// ═══ 16 MAIN · effects ═══════════════════════════════════════════════════════════════════════════
// The entry: one command, one exit code. Importing this file has no effect; running it (`node
// operator.ts run`) needs no build.

/** Runs one command; returns the exit code. Never throws. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    await obey(argv);
    await new Promise<void>((done) => process.stdout.write('', () => done())); // All is out.
    return Number(process.exitCode ?? 0);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isMisuse = error instanceof UsageError || `${code}`.startsWith('ERR_PARSE');
    const [words = ''] = wordsOf(error).split(isMisuse ? '. ' : '\n');
    console.error(`statefulcluster: ${escaped(words)}`);
    return isMisuse ? 2 : 1;
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
