// StatefulCluster: stateful pods on Kubernetes whose identity is never given to other state.
// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type http2 from 'node:http2';
import type net from 'node:net';
import { hostname } from 'node:os';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import kleur from 'kleur';
import type {
  Cluster,
  KubeConfig,
  V1PersistentVolumeClaim,
  V1PodTemplateSpec,
} from '@kubernetes/client-node';

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

/** Every API verb this operator ever sends; `tidy` holds the roles in deploy.yaml against it. */
export const RIGHTS: Readonly<Record<string, string>> = {
  'enge.me/statefulclusters': 'get list watch',
  'enge.me/statefulclusters/status': 'patch',
  'enge.me/statefulclusters/finalizers': 'update', // Asked of whoever sets blockOwnerDeletion.
  pods: 'get list watch create patch delete',
  'pods/resize': 'patch',
  'apps/controllerrevisions': 'get list watch create patch delete',
  persistentvolumeclaims: 'get list watch create patch delete',
  nodes: 'get list watch', // Without it, every node counts as open.
  persistentvolumes: 'get', // Without it, a volume counts as bound to its pod's last node.
  events: 'create patch',
  'coordination.k8s.io/leases': 'list create update', // In the Lease's namespace only.
};

/** Labels and annotations; README says what each means. Of these only they are read. */
export const MARK = {
  cluster: 'enge.me/statefulcluster',
  identity: 'enge.me/identity',
  index: 'apps.kubernetes.io/pod-index',
  ordinalName: 'statefulset.kubernetes.io/pod-name', // Of an adopted pod, for life.
  revision: 'controller-revision-hash',
  claims: 'enge.me/claims', // On claims of ours: '' from birth, later the seal.
  replaces: 'enge.me/replaces',
  returns: 'enge.me/returns', // On a pod before a deletion that is no end.
  retired: 'enge.me/retired',
  retiredAt: 'enge.me/retired-at',
  retiredPolicy: 'enge.me/retired-policy',
  replace: 'enge.me/replace',
  restore: 'enge.me/restore',
  inPlace: 'enge.me/in-place',
  paused: 'enge.me/paused',
  namespaces: 'enge.me/namespaces', // On a Lease: its holder's scope, and the next one:
  selector: 'enge.me/selector',
  deletionCost: 'controller.kubernetes.io/pod-deletion-cost',
  changeCause: 'kubernetes.io/change-cause',
  bindCompleted: 'pv.kubernetes.io/bind-completed',
  selectedNode: 'volume.kubernetes.io/selected-node',
  prune: 'argocd.argoproj.io/sync-options',
} as const;

/** Every number that bounds something, in one place. */
export const LIMITS = {
  batchMax: 500, // Members made in one pass, and in flight, reached by slow start 1, 2, 4, …
  passMs: 1_000, // A pass makes no further batch after this, and its cluster is queued last.
  askMax: 3, // Rounds of live reads in one pass.
  statusMembersMax: 100,
  statusRetiredMax: 10,
  backoffMinMs: 10_000,
  backoffMaxMs: 300_000,
  backoffToldMs: 60_000, // A backoff longer than this stands in Ready.
  earlyEndMs: 600_000, // A member that ends sooner than this after its birth ended early.
  placeMs: 5_000, // A pod without a node for so long may have volumes that no node can use.
  liveReadsMax: 30, // Others read live before an Available member is taken down.
  trustMs: 60_000, // Watched this long, an object's own timestamps are believed.
  calmMs: 60_000, // Available this long, earlier restarts are forgotten.
  futureMaxMs: 3_600_000, // An identity further ahead of its object than this is forged.
  bringUpMaxMs: 600_000, // OrderedReady waits no longer than this for one member.
  leavingMaxMs: 30_000, // … nor longer than this past the grace period of a leaving one.
  trialMs: 60_000, // A revision that the API server refused is tried again after this long.
  messageMax: 32_768, // Characters of a condition's message that the API server takes.
  toldMax: 50, // Events of one cluster that are remembered, to count repeats.
  statusEveryMs: 1_000, // Status writes of one cluster are at least this far apart.
  recheckMs: 1_000, // The cache is looked at again for own writes, should no event come.
  catchUpMaxMs: 10_000, // A cache that lags own writes longer than this is listed anew.
  requestMs: 15_000,
  eventMs: 2_000, // Of an Event: the pass of its cluster waits for it.
  pingMs: 10_000, // A connection that answers no ping within two of these is dead.
  annotationMax: 16_384, // Characters of one of our annotations.
  lastWordsMax: 500, // Characters that are kept of what a lost pod said last.
  sharedMax: 10_000, // Different parts of objects that are kept once.
  watchesMax: 50, // On one connection.
  pageSize: 500,
  stopMaxMs: 3_500, // From SIGTERM until what is in flight is abandoned; then the Lease goes.
  releaseMaxMs: 800,
  leaseMs: 15_000, // A Lease that nobody was seen to renew for so long is free.
  renewMaxMs: 10_000, // A holder that could not renew for so long does not lead any more.
  leaseRetryMs: 2_000,
  lagEveryMs: 1_000, // The event loop is watched by a tick of this length.
  lagMaxMs: 10_000, // A tick that came later than this: the process is not well.
  silenceMaxMs: 900_000, // Nor is a watch that gave no sign for so long.
  probersMax: 64, // Connections to the probes.
  briefMs: 1_000, // A stream that ends sooner without news has failed.
  syncMaxMs: 60_000,
  refusalsMax: 3, // So many 403s in a row, over some seconds, are believed.
  retryMinMs: 800, // A watch that broke.
  restEachMs: 1, // Between two passes a cluster rests so long for each of its pods …
  restMinMs: 100, // … unless that comes to less: small clusters never rest;
  restMaxMs: 1_000, // it rests no longer than this.
  againMinMs: 100, // A pass that failed, most often on a conflict.
  retryMaxMs: 30_000,
} as const;

// ═══ 1 VOCABULARY · pure ═════════════════════════════════════════════════════════════════════════
// The words of every other room, as readonly data. Objects from the API are projected to what is
// decided upon; times are milliseconds since 1970 (`…Ms`). No functions, no clever types.

export type IntOrPercent = number | string;
export type DataPolicy = 'Retain' | 'Delete';
type Dict = Readonly<Record<string, string>>;
type Json = Readonly<Record<string, unknown>>;

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
    readonly rollingUpdate: RollingUpdate;
  };
  readonly replacementPolicy: 'Always' | 'WhenVolumesLost';
  readonly liveness: Liveness;
  readonly persistentVolumeClaimRetentionPolicy: Readonly<
    Record<'whenDeleted' | 'whenScaled' | 'whenReplaced' | 'whenLost', DataPolicy>
  >;
}

/** How members get a changed template. `partition` members stay as they are; of the others at most
 *  `maxUnavailable` are taken down, and `maxSurge` are made beside them (Replace only). */
export interface RollingUpdate {
  readonly partition: IntOrPercent;
  readonly maxUnavailable: IntOrPercent;
  readonly maxSurge: IntOrPercent;
  readonly paused: boolean;
  readonly podUpdatePolicy: 'InPlaceIfPossible' | 'InPlaceOnly' | 'Recreate' | 'Replace';
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
  readonly mountedMs: number | undefined; // Sandbox and volumes are there; undefined: not yet.
  readonly startedMs: number | undefined;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined; // Last transition of the Ready condition.
  readonly disruption: string; // Reason of its DisruptionTarget condition, or ''.
  readonly disruptedMs: number | undefined;
  readonly restarts: number;
  readonly isDown: boolean; // A container waits in its back-off, or has just ended.
  readonly trouble: string; // Why a container waits or the pod is not scheduled, or ''.
  readonly lastWords: string; // What the kubelet or a container said last, for a loss.
  readonly containers: Readonly<Record<string, readonly [id: string, image: string]>>;
  readonly isObserved: boolean; // The kubelet has seen its newest spec.
  readonly resize: string; // Why cpu and memory are not as in its spec yet, or ''.
}

/** What is decided upon of a PersistentVolumeClaim. */
export interface Claim {
  readonly meta: Meta;
  readonly phase: string;
  readonly volume: string; // '' while unbound.
  readonly request: string; // spec.resources.requests.storage, a quantity.
  readonly capacity: string; // status.capacity.storage, a quantity, or ''.
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

/** What is decided upon of a Kubernetes Node. */
export interface Node {
  readonly meta: Meta;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined;
  readonly unschedulable: boolean;
  readonly taints: readonly Taint[]; // NoSchedule and NoExecute.
}
/** A taint of a node. */
export interface Taint {
  readonly key: string;
  readonly value?: string;
  readonly effect: string;
}

/** A PersistentVolume's node affinity: terms are alternatives, each a list of requirements. */
export interface Volume {
  readonly meta: Meta;
  readonly terms: readonly (readonly SelectorTerm[])[] | undefined; // undefined: any node.
}

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
export type Reason =
  | EndReason
  | 'ScaledOut'
  | 'Recreated'
  | 'Returned'
  | 'Restored'
  | 'Adopted'
  | 'Relabelled'
  | 'Sealed'
  | 'Expanded'
  | 'Owned'
  | 'Revised';

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

/** What a node is to one member: open = Ready and takes its pods; closed = Ready and does not;
 *  silent = not Ready; gone = absent; none = the member is on no node. */
export type NodeWord = 'open' | 'closed' | 'silent' | 'gone' | 'outOfService' | 'none';

/** What speaks for the end of an identity. It is due when `dueInMs` is 0. */
export interface End {
  readonly reason: EndReason;
  readonly dueInMs: number; // Infinity: not as long as something else is so.
  readonly sinceMs: number | undefined;
  readonly evidence: string; // Under this key its first sight is kept.
}

/** An identity with what exists of it. */
export interface Member {
  readonly identity: string;
  readonly pod: Pod | undefined;
  readonly claims: readonly Claim[]; // Oldest first.
  readonly leftovers: readonly Claim[]; // Of ours, that neither its pod nor its seal names.
  readonly life: 'live' | 'ending' | 'over'; // ending: the oldest claim is marked, not all.
  readonly retired: Retired | undefined; // What the mark says.
  readonly isBlocked: string; // Whose object stands in the place of its next pod, or ''.
  readonly index: number | undefined;
  readonly node: NodeWord;
  readonly end: End | undefined;
  readonly state: State;
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
  readonly vanished: ReadonlySet<string>; // Left the watch without an end: to be read live.
  readonly calm: ReadonlyMap<string, number>; // Pod UID → its restarts when it was last calm.
  readonly backoff: ReadonlyMap<string, Backoff>;
}
/** A pod that went, and the end of its identity, if this process did that. */
export interface Went {
  readonly pod: Pod | undefined;
  readonly reason: EndReason | undefined;
  readonly atMs: number;
}
/** What was refused, or came too often, and when it may be tried again. One that succeeded has an
 *  empty message. */
export interface Backoff {
  readonly times: number;
  readonly untilUptime: number;
  readonly message: string;
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
  readonly bodies: ReadonlyMap<string, Json>; // Whole pods, as read live in this pass.
  readonly answers: ReadonlyMap<string, string>; // What was asked in this pass; '' = read, passed.
  readonly desk: Desk;
  readonly denied: string; // Why its children may not be read any more, or ''.
  readonly uptime: number;
}

export type Kind = 'pods' | 'persistentvolumeclaims' | 'controllerrevisions';
/** A thing to read live before the decision can be made. A trial is a dry-run: POSTs of `bodies`
 *  of which none may be refused. */
export interface Ref {
  readonly kind: Kind | 'nodes' | 'persistentvolumes' | 'statefulclusters' | 'trials';
  readonly name: string;
  readonly bodies?: readonly Body[];
}
/** An object to POST. */
export interface Body {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

/** What can be done, in the order of the stages: verb → its stage, and its words in Events and in
 *  `plan`. Marks come before ends, so that a crash leaves no member ended and unmarked; what is
 *  upkeep holds nothing else up. */
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
export const STAGES = ['revise', 'mark', 'end', 'free', 'make', 'keep'] as const;

interface Doing {
  readonly verb: Verb;
  readonly because: Reason;
  readonly identity: string; // Of the member that it is about; '' = the cluster's own.
}
/** Changes the very object and version that was decided upon. `change` is a merge patch. */
export interface Patch extends Doing {
  readonly do: 'Patch';
  readonly kind: Kind;
  readonly object: Pod | Claim | Revision;
  readonly change: Json;
}
/** Deletes the very object that was decided upon; a claim only in that version (I3). */
export interface Delete extends Doing {
  readonly do: 'Delete';
  readonly kind: Kind;
  readonly object: Pod | Claim | Revision;
}
/** Changes a living pod; `change` is a strategic patch, `resize` goes to its own subresource. */
export interface Update extends Doing {
  readonly do: 'Update';
  readonly kind: 'pods';
  readonly object: Pod;
  readonly revision: string;
  readonly change: Json;
  readonly resize: Json | undefined;
}
/** Makes what a member lacks: claims first, then the pod. Its bodies are built when they are sent.
 *  `after` is the identity whose end in this pass makes room for it. */
export interface Make extends Doing {
  readonly do: 'Make';
  readonly revision: Revision;
  readonly claims: readonly string[]; // Names of the claim templates of which one is to be made.
  readonly index: number | undefined;
  readonly replaces?: string; // `<identity> <Reason>`.
  readonly after?: string;
}
/** Makes a ControllerRevision. */
export interface Record_ extends Doing {
  readonly do: 'Record';
  readonly body: Body;
}
export type Action = Patch | Delete | Update | Make | Record_;

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
  readonly waits: string; // Why members are not made now, or ''.
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
  readonly index?: number;
  readonly revision: string;
  readonly health: State;
  readonly reason: string;
  readonly since?: string;
  readonly claims: readonly string[];
}
/** One line of `status.retired`. */
export interface RetiredStatus {
  readonly identity: string;
  readonly reason: string;
  readonly message?: string; // The last words of kubelet or container.
  readonly at: string;
  readonly claims: readonly string[];
  readonly replacedBy: string;
}
/** A hint for people and tools. Two things are read back: `newestIdentity`, which can only raise
 *  the next identity, and `currentRevision` while no pod shows one; never an identity or a claim. */
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

const POWERS = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
/** resource.Quantity as a number, precise enough to tell larger from smaller; NaN when it is
 *  none. */
export function quantity(text: string): number {
  const [, digits, unit = '', binary] =
    /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([mkKMGTPE]?)(i?)$/.exec(text) ?? [];
  if (unit === 'm') return Number(digits) / 1000;
  const power = POWERS.indexOf(binary && unit === 'K' ? 'k' : unit);
  return power < 0 ? NaN : Number(digits) * (binary ? 1024 : 1000) ** power;
}

const unique = <T>(items: Iterable<T>): T[] => [...new Set(items)];
const dictOf = (value: unknown): Dict => (value ?? {}) as Dict;
/** Up to three names, then how many more: for messages that people read. */
export function fewNames(names: readonly string[]): string {
  const rest = names.length - 3;
  return rest > 0 ? `${names.slice(0, 3).join(', ')} and ${rest} more` : names.join(', ');
}

/** After one more failure: 10 s doubling to 5 min. */
export function nextBackoff(before: Backoff | undefined, message: string, uptime: number): Backoff {
  const times = (before?.times ?? 0) + 1;
  return { times, untilUptime: uptime + doubled(times), message };
}
const doubled = (times: number): number =>
  Math.min(LIMITS.backoffMinMs * 2 ** Math.min(times - 1, 10), LIMITS.backoffMaxMs);
/** What must still wait, if it must. */
export function waiting(
  backoff: ReadonlyMap<string, Backoff>,
  key: string,
  uptime: number,
): Backoff | undefined {
  const found = backoff.get(key);
  return found && uptime < found.untilUptime ? found : undefined;
}

// ═══ 3 IDENTITY · pure ═══════════════════════════════════════════════════════════════════════════
// How an identity is drawn and read, whose a pod or a claim is, and the bodies that are made of a
// template. It must not know whether a member is healthy.

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
const valueOf = (text: string): number =>
  [...text].reduce((sum, c) => sum * BASE + ALPHABET.indexOf(c), 0);

/** Second of birth since 2020, or -1 for an adopted identity, which carries no time. */
export const birthSecond = (identity: string): number =>
  IDENTITY.test(identity) ? valueOf(identity.slice(0, 7)) : -1;
export const birthMs = (identity: string): number => EPOCH_MS + birthSecond(identity) * 1000;

/** Oldest first. Identities that carry no time are older than all others. */
export function byAge(a: string, b: string): number {
  const order = birthSecond(a) - birthSecond(b) || a.length - b.length; // Ordinals: 9 before 10.
  return order !== 0 ? Math.sign(order) : a < b ? -1 : a > b ? 1 : 0;
}

/** The youngest that carries a time, or ''. */
export const youngest = (identities: Iterable<string>): string =>
  [...identities]
    .filter((id) => birthSecond(id) >= 0)
    .sort()
    .at(-1) ?? '';

/** Draws `count` identities, each younger than all known ones: the second used is never before that
 *  of the newest, so a clock set back cannot bring an identity back (I1), and within that second
 *  chance goes on above it, so that names sort by age. A crowded second is left for the next. */
export function allocate(
  count: number,
  known: Iterable<string>,
  now: number,
  random: () => number,
): readonly string[] {
  const newest = youngest(known);
  const second = Math.max(birthSecond(newest), Math.floor((now - EPOCH_MS) / 1000));
  assert(second < BASE ** 7, 'an identity has seven digits for its second');
  const chances = BASE ** 3;
  const floor = second === birthSecond(newest) ? valueOf(newest.slice(7)) + 1 : 0;
  const crowded = chances - floor < 2 * count;
  const least = crowded ? 0 : floor;
  const drawn = new Set<number>();
  while (drawn.size < Math.min(count, chances / 2)) {
    drawn.add(least + Math.floor(random() * (chances - least)));
  }
  return [...drawn]
    .sort((a, b) => a - b)
    .map((n) => digits(second + (crowded ? 1 : 0), 7) + digits(n, 3));
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
/** Is its controller an earlier object of this cluster's name, which is gone? Garbage collection
 *  takes such a pod or claim, or frees it. */
export const isOfFormer = ({ owners }: Meta, { name, uid }: Meta): boolean =>
  owners.some(
    (o) => o.controller && o.kind === 'StatefulCluster' && o.name === name && o.uid !== uid,
  );

/** Is this claim one of ours, of the identity that its label names? By its exact name, of a template
 *  of the spec or of a kept revision or as a volume of its pod; by its labels; by its owners; and
 *  by the mark that the operator, adoption or a restore put on it. The one door for claims that
 *  others made: retired, and to be restored. Anything else moves nothing, whatever it carries. */
export function isOurClaim(
  { meta }: Claim,
  cluster: StatefulCluster,
  templates: Iterable<string>,
  pod: Pod | undefined,
): boolean {
  const { name, uid } = cluster.meta;
  const identity = meta.labels[MARK.identity] ?? '';
  if (identity === '' || meta.labels[MARK.cluster] !== name) return false;
  const isNamed =
    pod?.claims.includes(meta.name) === true ||
    [...templates].some((t) => claimName(t, name, identity) === meta.name);
  if (!isNamed || (hasController(meta) && !isControlledBy(meta, uid))) return false;
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

/** What a revision remembers of a template: what its hash is made of. */
function revisionTemplate({ metadata, spec }: V1PodTemplateSpec): V1PodTemplateSpec {
  const { labels, annotations } = metadata ?? {};
  const kept = { ...(labels && { labels }), ...(annotations && { annotations }) };
  return { ...(Object.keys(kept).length > 0 && { metadata: kept }), ...(spec && { spec }) };
}
const sameTemplate = (a: V1PodTemplateSpec, b: V1PodTemplateSpec): boolean =>
  canonicalJson(revisionTemplate(a)) === canonicalJson(revisionTemplate(b));

/** The revision of `spec.template`: one of ours with an equal template, whatever version of this
 *  program made it; else a new one, under a name that no other revision has (`collisionCount`). */
export function updateRevisionOf(
  cluster: StatefulCluster,
  revisions: ReadonlyMap<string, Revision>,
): Omit<Revisions, 'current'> {
  const { meta, spec } = cluster;
  const ours = [...revisions.values()].filter((r) => isControlledBy(r.meta, meta.uid));
  const equal = ours.filter((r) => sameTemplate(r.template, spec.template));
  const claimTemplates = claimTemplateNames(spec);
  const [found] = equal.sort((a, b) => b.number - a.number);
  let collisionCount = cluster.status.collisionCount ?? 0;
  if (found) return { update: { ...found, claimTemplates }, collisionCount };
  let hash = revisionHash(spec.template, collisionCount);
  while (revisions.has(`${meta.name}-${hash}`)) {
    hash = revisionHash(spec.template, ++collisionCount);
  }
  const number = Math.max(0, ...ours.map((r) => r.number)) + 1;
  const name = `${meta.name}-${hash}`;
  const fresh = { ...meta, name, uid: '', labels: {}, annotations: {}, owners: [] };
  const template = revisionTemplate(spec.template);
  return { update: { meta: fresh, hash, number, template, claimTemplates }, collisionCount };
}

/** Body of a ControllerRevision. */
export function revisionBody(cluster: StatefulCluster, revision: Revision): Body {
  const { hash, number, template, claimTemplates } = revision;
  const cause = cluster.meta.annotations[MARK.changeCause];
  return {
    apiVersion: 'apps/v1',
    kind: 'ControllerRevision',
    metadata: {
      name: revision.meta.name,
      labels: { [MARK.cluster]: cluster.meta.name, [MARK.revision]: hash },
      ...(cause !== undefined && { annotations: { [MARK.changeCause]: cause } }),
      ownerReferences: [ownerOf(cluster)],
    },
    // As Go writes it, see `written`: other data could never be patched, nor orphaned.
    data: JSON.parse(canonicalJson({ template, claimTemplates })) as Json,
    revision: number,
  };
}

const withoutOurs = (dict: unknown): Dict =>
  Object.fromEntries(Object.entries(dictOf(dict)).filter(([key]) => !key.startsWith('enge.me/')));
/** What a template's own labels come to: the selector's, then the template's, the later win. */
function templateLabels({ spec }: StatefulCluster, template: V1PodTemplateSpec): Dict {
  const labels = { ...spec.selector.matchLabels, ...withoutOurs(template.metadata?.labels) };
  const { [MARK.revision]: _, ...others } = labels;
  return others;
}
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

/** The tolerations of a member's pod. The taint manager must not set the time of a replacement:
 *  `liveness` does. Added only where nodes can be read, and only for taints of which the template
 *  says nothing itself. */
function tolerationsOf(template: V1PodTemplateSpec, nodesReadable: boolean): readonly Toleration[] {
  const own = (template.spec?.tolerations ?? []) as readonly Toleration[];
  const isSaid = (key: string): boolean =>
    own.some((t) => (!t.key || t.key === key) && (!t.effect || t.effect === 'NoExecute'));
  const added = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']
    .filter((key) => nodesReadable && !isSaid(key))
    .map((key) => ({ key, operator: 'Exists', effect: 'NoExecute' }));
  return [...own, ...added];
}
type Toleration = Readonly<Partial<Record<'key' | 'operator' | 'value' | 'effect', string>>>;

/** What a member is made with beside its template. */
export interface Making {
  readonly replaces?: string | undefined;
  readonly index?: number | undefined;
  readonly nodesReadable?: boolean;
}
const indexLabel = ({ index }: Making): Dict =>
  index === undefined ? {} : { [MARK.index]: String(index) };
const replacesMark = ({ replaces }: Making): Dict =>
  replaces === undefined ? {} : { [MARK.replaces]: replaces };

/** Body of a member's pod at a revision. Child metadata comes from an allow-list: labels and
 *  annotations only. An adopted ordinal keeps its own labels for life. */
export function podBody(
  cluster: StatefulCluster,
  identity: string,
  revision: Revision,
  making: Making,
): Body {
  const { serviceName } = cluster.spec;
  const { template, claimTemplates: names } = revision;
  const name = podName(cluster.meta.name, identity);
  const isOrdinal = /^\d+$/.test(identity);
  const volumes = [
    ...(template.spec?.volumes ?? []).filter((v) => !names.includes(v.name)),
    ...names.map((volume) => ({
      name: volume,
      persistentVolumeClaim: { claimName: claimName(volume, cluster.meta.name, identity) },
    })),
  ];
  const tolerations = tolerationsOf(template, making.nodesReadable ?? false);
  const { hostname: _h, subdomain: _s, ...own } = template.spec ?? { containers: [] };
  const labels = {
    ...podLabels(cluster, identity, revision),
    ...(isOrdinal && { [MARK.index]: identity, [MARK.ordinalName]: name }),
    ...indexLabel(making),
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      labels,
      annotations: { ...withoutOurs(template.metadata?.annotations), ...replacesMark(making) },
      ownerReferences: [ownerOf(cluster)],
    },
    spec: {
      ...own,
      ...(serviceName !== '' && { hostname: name, subdomain: serviceName }),
      ...(volumes.length > 0 && { volumes }),
      ...(tolerations.length > 0 && { tolerations }),
    },
  };
}

/** Body of the claim that an identity gets of one template. The selector's labels are not copied: a
 *  GitOps tool would take an ownerless claim for its own. An owner reference to the cluster is
 *  `whenDeleted: Delete`. */
export function claimBody(
  cluster: StatefulCluster,
  identity: string,
  name: string,
  making: Making,
): Body {
  const template = cluster.spec.volumeClaimTemplates.find((t) => t.metadata?.name === name);
  const { whenDeleted } = cluster.spec.persistentVolumeClaimRetentionPolicy;
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name: claimName(name, cluster.meta.name, identity),
      labels: {
        ...withoutOurs(template?.metadata?.labels),
        ...ourLabels(cluster.meta.name, identity),
        ...indexLabel(making),
      },
      annotations: {
        ...withoutOurs(template?.metadata?.annotations),
        [MARK.prune]: 'Prune=false',
        [MARK.claims]: '',
        ...replacesMark(making),
      },
      ...(whenDeleted === 'Delete' && { ownerReferences: [ownerOf(cluster)] }),
    },
    spec: template?.spec,
  };
}

/** The identity and the Reason that `enge.me/replaces` records, or undefined. */
export function predecessorOf(meta: Meta): { identity: string; reason: string } | undefined {
  const [identity, reason] = (meta.annotations[MARK.replaces] ?? '').split(' ');
  return identity && reason ? { identity, reason } : undefined;
}

// ═══ 4 HEALTH · pure ═════════════════════════════════════════════════════════════════════════════
// What is known of one member, and what follows from it: the words for nodes, the table of what
// ends an identity, and the member's state. It must not know how many members are wanted, nor
// whether the brake lets a judged one go.

/** What the leaves of plan() read, and what they add to. */
interface Draft {
  readonly s: Snapshot;
  readonly now: number;
  readonly actions: Action[];
  readonly ask: Map<string, Ref>;
  readonly unknown: Set<string>; // Identities of which a question has no answer: left alone.
  readonly evidence: string[];
  readonly wakes: number[]; // Look again after so many milliseconds.
  readonly notes: string[];
  waits: string;
  blocked: string;
}
export const keyOfRef = (ref: Pick<Ref, 'kind' | 'name'>): string => `${ref.kind}/${ref.name}`;
/** Was all this read live in this pass? What was not is asked for; what has no answer leaves the
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
/** Ready now, or not Ready with a transition after the start: a pod's first Ready=False is written
 *  at its start. */
const wasReady = (pod: Pod): boolean =>
  pod.ready || (pod.readySinceMs ?? 0) > (pod.startedMs ?? Infinity) + 1000;
/** Ready for `minReadySeconds`, as Deployment counts it, and neither ending nor ended. */
export function isAvailable(pod: Pod, minReadySeconds: number, now: number): boolean {
  if (!pod.ready || !isUp(pod)) return false;
  return minReadySeconds === 0 || now - (pod.readySinceMs ?? now) >= minReadySeconds * 1000;
}

/** What `enge.me/in-place` says of an update under way: the revision, and of each container that
 *  must restart its ID and image before. Whatever else is written there names no revision. */
export function inPlaceOf(pod: Pod): { revision: string; before: Pod['containers'] } | undefined {
  const text = pod.meta.annotations[MARK.inPlace];
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

const OUT_OF_SERVICE = 'node.kubernetes.io/out-of-service';
const OF_KUBERNETES = /^node\.(cloudprovider\.)?kubernetes\.io\//;
const isTolerated = (taint: Taint, all: readonly Toleration[]): boolean =>
  all.some(
    (t) =>
      (!t.key || t.key === taint.key) &&
      (!t.effect || t.effect === taint.effect) &&
      (t.operator === 'Exists' || (t.value ?? '') === (taint.value ?? '')),
  );
/** What a node is to the pods of this cluster. */
function nodeWord(s: Snapshot, name: string): NodeWord {
  if (name === '') return 'none';
  if (s.nodes === undefined) return 'open'; // Blind: DisruptionTarget stands in, see endOf.
  const node = s.nodes.get(name);
  if (!node) return 'gone';
  if (node.taints.some((t) => t.key === OUT_OF_SERVICE)) return 'outOfService';
  if (!node.ready) return 'silent';
  return closedBy(s, node) === '' ? 'open' : 'closed';
}
/** Why a Ready node takes no pods of this cluster: somebody's `cordon` or taint, or Kubernetes' own
 *  taint, which says nothing about the disks; '' if it takes them. */
function closedBy(s: Snapshot, node: Node): '' | 'cordon' | 'taint' | 'pressure' {
  if (node.unschedulable) return 'cordon';
  const tolerated = tolerationsOf(s.cluster.spec.template, true);
  const bars = node.taints.filter((taint) => !isTolerated(taint, tolerated));
  if (bars.length === 0) return '';
  return bars.every((taint) => OF_KUBERNETES.test(taint.key)) ? 'pressure' : 'taint';
}
const hasOpenNode = (s: Snapshot): boolean =>
  s.nodes === undefined || [...s.nodes.keys()].some((name) => nodeWord(s, name) === 'open');

/** Where the member was last seen: its pod, as this process saw it go, or as the scheduler chose. */
export function lastNodeOf(s: Snapshot, m: Pick<Member, 'identity' | 'pod' | 'claims'>): string {
  const pod = m.pod ?? s.desk.went.get(m.identity)?.pod;
  const chosen = m.claims.map((c) => c.meta.annotations[MARK.selectedNode]).find(Boolean);
  return pod?.node || (chosen ?? '');
}
/** A volume names nodes if its affinity has a key that ends in neither `zone` nor `region`: local
 *  drivers have keys of their own. Any other can follow, also to a node that is yet to be made. */
const namesNodes = ({ terms }: Volume): boolean =>
  (terms ?? []).some((all) => all.some(({ key }) => !/(zone|region)$/.test(key)));

/** The nodes that all volumes of a member allow; undefined if none of them names nodes. A volume
 *  that cannot be read counts as naming the node its pod was last on. */
function nodesAllowed(d: Draft, m: Bare): readonly Node[] | undefined {
  const { s } = d;
  if (s.nodes === undefined) return undefined;
  const last = lastNodeOf(s, m);
  const tests = m.claims.flatMap(({ meta, volume: name }): ((node: Node) => boolean)[] => {
    const volume = s.volumes.get(name);
    if (volume && !namesNodes(volume)) return [];
    if (volume) {
      const { terms = [] } = volume;
      const fits = ({ meta: { labels } }: Node): boolean =>
        terms.some((all) => all.every((term) => termMatches(term, labels)));
      return [fits];
    }
    const only = name === '' ? meta.annotations[MARK.selectedNode] : last;
    return only ? [(node) => node.meta.name === only] : [];
  });
  if (tests.length === 0) return undefined;
  return [...s.nodes.values()].filter((node) => tests.every((fits) => fits(node)));
}
/** Volumes that must be known before anything is said of a member that does not run. */
function readsVolumes(d: Draft, m: Bare): boolean {
  const { s, now } = d;
  // Most pods find a node within seconds; only then their volumes are looked at.
  const isYoung = isUp(m.pod) && Math.abs(now - m.pod.meta.createdMs) < LIMITS.placeMs;
  if (isYoung) d.wakes.push(LIMITS.placeMs);
  if (s.nodes === undefined || !s.volumesReadable || isYoung) return !isYoung;
  const unread = m.claims.filter((c) => isBound(c) && !s.volumes.has(c.volume));
  return isRead(d, m.identity, ...unread.map((c) => refOf('persistentvolumes', c.volume)));
}
const refOf = (kind: Ref['kind'], name: string): Ref => ({ kind, name });

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
  return watchedMs < LIMITS.trustMs
    ? Math.max(0, Math.min(watchedMs, own))
    : Math.max(watchedMs, own);
}
/** Under this key the first sight of evidence is kept. A changed transition time is new evidence,
 *  so a flap between two looks is not counted as one. */
function evidenceKey(d: Draft, m: Bare, reason: EndReason, sinceMs?: number): string {
  const pod = m.pod ?? d.s.desk.went.get(m.identity)?.pod;
  return [reason, m.identity, pod?.meta.uid ?? '', sinceMs ?? ''].join('/');
}
function will(d: Draft, m: Bare, reason: EndReason, sinceMs?: number): End {
  const evidence = evidenceKey(d, m, reason);
  d.evidence.push(evidence);
  return { reason, dueInMs: 0, sinceMs, evidence };
}
function judged(d: Draft, m: Bare, reason: EndReason, seconds: number, sinceMs?: number): End {
  const evidence = evidenceKey(d, m, reason, sinceMs);
  d.evidence.push(evidence);
  const watchedMs = d.s.uptime - (d.s.desk.seen.get(evidence) ?? d.s.uptime);
  const dueInMs = Math.max(0, seconds * 1000 - lastedMs(sinceMs, watchedMs, d.now));
  // The object's own times may count, from when it was watched for a minute.
  if (dueInMs > 0) d.wakes.push(dueInMs, Math.max(0, LIMITS.trustMs - watchedMs) || Infinity);
  return { reason, dueInMs, sinceMs, evidence };
}

/** The table of DESIGN.md: the first row that matches, or undefined. Anything that no row names
 *  (eviction, preemption, pod GC, pressure, a pod that ended by itself or vanished unseen) ends
 *  nothing: the member returns. Members without claims end wherever others return. */
function endOf(d: Draft, m: Bare): End | undefined {
  const { spec } = d.s.cluster;
  const { pod } = m;
  if (isUp(pod) && isTakenOut(d.s, pod)) return will(d, m, 'Released');
  const asked = [...(pod ? [pod] : []), ...m.claims].map((o) => o.meta.annotations[MARK.replace]);
  if (asked.includes('true')) return will(d, m, 'ReplaceRequested');
  if (!isRunning(m) && isClaimGone(d, m)) return will(d, m, 'ClaimGone');
  if (spec.suspend) return undefined; // Nobody is judged, and whose pod goes returns.
  if (m.claims.length === 0) {
    return pod && isTerminal(pod)
      ? will(d, m, pod.disruption ? 'PodEvicted' : 'PodFailed', pod.readySinceMs)
      : (endByNode(d, m) ?? endByPod(d, m));
  }
  if (isDeletedByHand(d, m)) {
    if (spec.replacementPolicy === 'Always') return will(d, m, 'PodDeleted', pod?.meta.deletedMs);
  }
  return endByNode(d, m) ?? endByVolumes(d, m) ?? endByPod(d, m);
}

/** Its user took the pod out of `spec.selector`; labels of ours that it lacks are put back. Not as
 *  long as admission is known to change the labels of new pods. */
function isTakenOut(s: Snapshot, pod: Pod): boolean {
  const { meta, spec } = s.cluster;
  const ours = ourLabels(meta.name, identityOf(pod, meta.name));
  const isAdmissions = s.desk.backoff.get(makeKey(s.cluster))?.message.startsWith('admission ');
  return !isAdmissions && !selectorMatches(spec.selector, { ...pod.meta.labels, ...ours });
}

/** A claim that its pod mounts is absent or being deleted; without a pod, one that its next pod
 *  names is being deleted, or is absent although the seal names it. Absence is read live. */
function isClaimGone(d: Draft, m: Bare): boolean {
  const { s, now: _ } = d;
  const { name } = s.cluster.meta;
  const own = m.pod?.claims.filter((claim) => claim.endsWith(`-${name}-${m.identity}`));
  const next = claimTemplateNames(s.cluster.spec).map((t) => claimName(t, name, m.identity));
  const sealed = sealOf(m.claims[0]);
  const isAbsent = (claim: string): boolean =>
    !s.claims.has(claim) && isRead(d, m.identity, refOf('persistentvolumeclaims', claim));
  const isOthers = (claim: string): boolean => {
    const found = s.claims.get(claim);
    return found !== undefined && hasController(found.meta) && !m.claims.includes(found);
  };
  const isGoing = (claim: string): boolean =>
    m.claims.some((c) => c.meta.name === claim && isTerminating(c));
  if (own) return own.some((claim) => isGoing(claim) || isAbsent(claim) || isOthers(claim));
  return next.some((claim) => isGoing(claim) || (sealed.includes(claim) && isAbsent(claim)));
}

/** Somebody deleted the pod: it goes, not by us (`returns`) nor as Kubernetes takes pods off nodes
 *  (DisruptionTarget, unless that came later), from a node that is open. */
function isDeletedByHand(d: Draft, m: Bare): boolean {
  const went = d.s.desk.went.get(m.identity);
  const pod = m.pod ?? (went?.reason === undefined ? went?.pod : undefined);
  if (!pod || pod.meta.deletedMs === undefined || MARK.returns in pod.meta.annotations)
    return false;
  if (nodeWord(d.s, pod.node) !== 'open') return false;
  return pod.disruption === '' || d.s.desk.seen.has(evidenceKey(d, m, 'PodDeleted'));
}

/** Its pod object is on a node that is silent. Where nodes cannot be read, the taint manager's word
 *  stands in for the node's. */
function endByNode(d: Draft, m: Bare): End | undefined {
  const { pod } = m;
  const seconds = d.s.cluster.spec.liveness.nodeUnreachableSeconds;
  if (!pod || isTerminal(pod)) return undefined;
  if (m.node === 'silent') {
    return judged(d, m, 'NodeUnreachable', seconds, d.s.nodes?.get(pod.node)?.readySinceMs);
  }
  if (d.s.nodes || pod.disruption !== 'DeletionByTaintManager') return undefined;
  return judged(d, m, 'NodeUnreachable', seconds, pod.disruptedMs);
}

/** It does not run, and its volumes hold it on nodes none of which is open. */
function endByVolumes(d: Draft, m: Bare): End | undefined {
  const { s } = d;
  const l = s.cluster.spec.liveness;
  if (isRunning(m)) return undefined;
  if (m.claims.some((c) => c.phase === 'Lost'))
    return judged(d, m, 'VolumeLost', l.volumeLostSeconds);
  const last = s.desk.went.get(m.identity)?.pod;
  if (!s.nodes && !s.volumesReadable && !m.pod && last?.disruption === 'DeletionByPodGC') {
    return judged(d, m, 'NodeGone', l.nodeGoneSeconds, last.disruptedMs);
  }
  if (!readsVolumes(d, m)) return undefined;
  const allowed = nodesAllowed(d, m);
  const words = allowed?.map((node) => nodeWord(s, node.meta.name)) ?? ['open'];
  if (words.includes('open')) return undefined;
  if (words.length > 0 && words.every((word) => word === 'outOfService')) {
    return will(d, m, 'NodeOutOfService');
  }
  const ends = (allowed ?? []).map((node) => endByVolumeNode(d, m, node));
  if (ends.some((end) => end === undefined)) return undefined;
  const latest = ends.reduce((a, b) => (a && b && a.dueInMs > b.dueInMs ? a : b), undefined);
  const found = latest ?? judged(d, m, 'NodeGone', l.nodeGoneSeconds);
  // Never before another node is open: nothing would be won.
  return hasOpenNode(s) ? found : { ...found, dueInMs: Infinity };
}
/** What one of the nodes that hold it says; undefined: that it waits. */
function endByVolumeNode(d: Draft, m: Bare, node: Node): End | undefined {
  const { liveness: l, replacementPolicy } = d.s.cluster.spec;
  const word = nodeWord(d.s, node.meta.name);
  if (word === 'silent') {
    return judged(d, m, 'NodeUnreachable', l.nodeUnreachableSeconds, node.readySinceMs);
  }
  if (word === 'outOfService') return judged(d, m, 'NodeGone', 0);
  const why = closedBy(d.s, node);
  if (why === 'pressure' || replacementPolicy === 'WhenVolumesLost') return undefined;
  const wasTaken =
    m.pod &&
    (isTerminal(m.pod) || isTerminating(m.pod)) &&
    !(MARK.returns in m.pod.meta.annotations);
  return judged(d, m, 'PodEvicted', why === 'cordon' && wasTaken ? 0 : l.volumeLostSeconds);
}

/** What its pod says of itself, by the thresholds of `liveness`; all of them default to never. An
 *  update has changed the pod, or it is on its way out: that is no evidence. */
function endByPod(d: Draft, m: Bare): End | undefined {
  const { pod } = m;
  const l = d.s.cluster.spec.liveness;
  if (!isUp(pod) || (inPlaceOf(pod) && !isApplied(pod))) return undefined;
  if (l.maxRestarts > 0 && pod.isDown && pod.restarts - calmRestarts(d, pod) > l.maxRestarts) {
    return judged(d, m, 'CrashLoop', 0, pod.readySinceMs);
  }
  if (pod.ready) return undefined;
  if (wasReady(pod)) {
    return l.unreadySeconds > 0
      ? judged(d, m, 'Unready', l.unreadySeconds, pod.readySinceMs)
      : undefined;
  }
  if (l.startupSeconds === 0 || pod.mountedMs === undefined) return undefined;
  return judged(d, m, 'StartupTimeout', l.startupSeconds, pod.mountedMs);
}
/** Restarts up to the time it was last calm; at first sight, those of a pod that was Ready once are
 *  taken for old ones. */
const calmRestarts = ({ s }: Draft, pod: Pod): number =>
  s.desk.calm.get(pod.meta.uid) ?? (wasReady(pod) ? pod.restarts : 0);

/** The one word for a member, as STATES says. */
function stateOf(d: Draft, m: Omit<Member, 'state'>, isWithheld: boolean): State {
  const { spec } = d.s.cluster;
  const { pod } = m;
  if (m.life !== 'live') return 'Retiring';
  if (isWithheld) return 'Withheld';
  if (!isUp(pod)) return spec.suspend ? 'Suspended' : 'Returning';
  if (inPlaceOf(pod) && !isApplied(pod)) return 'Updating';
  if (isAvailable(pod, spec.minReadySeconds, d.now)) return 'Available';
  if (pod.ready) {
    const limitMs = spec.minReadySeconds * 1000;
    // No longer than the limit, should the clock be behind the one that wrote the transition.
    d.wakes.push(Math.min(limitMs, (pod.readySinceMs ?? d.now) + limitMs - d.now));
    return 'Ready';
  }
  if (wasReady(pod)) return 'Unready';
  return pod.node === '' ? 'Pending' : 'Starting';
}

// ═══ 5 PLAN · pure ═══════════════════════════════════════════════════════════════════════════════
// From a snapshot to a question or an answer. plan() owns the order, the leaves compute: who is
// there, the brake, ends, places, updates, upkeep. What must be read live before it is acted upon
// is asked for, and plan() is called again with the answers. Nothing here waits, reads a clock or
// draws by itself.

/** Decides. Idle when the cluster is being deleted (nothing is made after that), paused, or when
 *  its spec cannot work; the members are judged all the same, for the status. */
export function plan(s: Snapshot, now: number, random: () => number): Decision {
  const d: Draft = {
    s,
    now,
    actions: [],
    ask: new Map(),
    unknown: new Set(),
    evidence: [],
    wakes: wakesOf(s),
    notes: [],
    waits: '',
    blocked: '',
  };
  const bare = membersOf(d);
  const found = bare.map((m) => ({ ...m, end: m.life === 'live' ? endOf(d, m) : undefined }));
  const r = revisionsOf(s, found);
  const brake = planBrake(d, found, r, random);
  const members = found.map((m): Member => {
    return { ...m, state: stateOf(d, m, brake.withheld.has(m.identity)) };
  });
  const stalled = s.denied || specProblem(s.cluster);
  const behind = behindOf(s, members, r);
  const done = (actions: readonly Action[]): Plan => ({
    members,
    actions,
    evidence: d.evidence,
    calm: calmOf(d, members),
    wakeMs: Math.max(100, Math.min(...d.wakes.filter((ms) => ms > 0), Infinity)),
    revisions: r,
    behind,
    stalled,
    waits: d.waits,
    blocked: d.blocked,
    withheld: brake.why,
    notes: d.notes,
  });
  const isPaused = s.cluster.meta.annotations[MARK.paused] === 'true';
  if (isTerminating(s.cluster) || isPaused || stalled !== '') return done([]);
  const ending = planEnds(d, members, brake.go);
  if (planHistory(d, members, r)) {
    planPlaces(d, members, ending, r, random);
    planUpdates(d, members, ending, r);
  }
  planUpkeep(d, members, ending);
  if (d.ask.size > 0) return { ask: [...d.ask.values()] };
  const isKnown = (a: Action): boolean =>
    !d.unknown.has(a.identity) && !(a.do === 'Make' && d.unknown.has(a.after ?? ''));
  return done(d.actions.filter(isKnown));
}

/** When time alone changes what is known: what was refused is tried again. */
const wakesOf = (s: Snapshot): number[] =>
  [...s.desk.backoff.values()].map((b) => b.untilUptime - s.uptime).filter((ms) => ms < Infinity);
const clusterRef = ({ cluster }: Snapshot): Ref => refOf('statefulclusters', cluster.meta.name);
const podRef = (s: Snapshot, { identity }: Pick<Member, 'identity'>): Ref =>
  refOf('pods', podName(s.cluster.meta.name, identity));
/** The cluster-wide backoff of refused creations; an edit begins a new one. */
export const makeKey = ({ meta }: StatefulCluster): string => `make/${meta.generation}`;
/** Under this key a refusal of the action is kept. */
export const keyOfAction = (a: Action): string =>
  `${a.verb}/${'object' in a ? a.object.meta.name : a.do === 'Record' ? a.body.metadata.name : a.identity}`;

/** Why nothing can be created from this spec, as a sentence for `Stalled`, or ''. The CRD's CEL
 *  rules refuse most of it earlier; an object that is older than the rules gets here. */
export function specProblem(cluster: StatefulCluster): string {
  const { selector, template } = cluster.spec;
  const terms =
    Object.keys(selector.matchLabels ?? {}).length + (selector.matchExpressions ?? []).length;
  if (terms === 0) return 'spec.selector is empty: it would select every pod';
  if (!selectorMatches(selector, podLabels(cluster, 'identity', { template, hash: 'hash' }))) {
    return 'spec.selector does not match the labels that pods get from spec.template';
  }
  if ((template.spec?.containers ?? []).length === 0) return 'spec.template has no containers';
  return '';
}

// ─── Who is there ────────────────────────────────────────────────────────────────────────────────

/** Groups pods and claims by identity; nothing is judged here. Counting is by controller UID. */
function membersOf(d: Draft): readonly Bare[] {
  const { s } = d;
  const { cluster } = s;
  const { name, uid } = cluster.meta;
  // What left the watch without an end may have lost its labels: nothing rests on its absence.
  for (const key of s.desk.vanished) {
    const [kind, vanished = ''] = key.split('/');
    isRead(d, '', refOf(kind as Kind, vanished));
  }
  const pods = new Map<string, Pod>();
  for (const pod of s.pods.values()) {
    if (isControlledBy(pod.meta, uid)) pods.set(identityOf(pod, name), pod);
  }
  const kept = [...s.revisions.values()].flatMap((r) => r.claimTemplates);
  const templates = new Set([...claimTemplateNames(cluster.spec), ...kept]);
  const claims = new Map<string, Claim[]>();
  for (const claim of s.claims.values()) {
    const identity = claim.meta.labels[MARK.identity] ?? '';
    if (!isOurClaim(claim, cluster, templates, pods.get(identity))) continue;
    claims.set(identity, [...(claims.get(identity) ?? []), claim]);
  }
  return unique([...pods.keys(), ...claims.keys()])
    .filter((identity) => identity !== '')
    .sort(byAge)
    .map((identity) => memberOf(d, identity, pods.get(identity), claims.get(identity) ?? []))
    .filter((m) => m.pod || m.life !== 'live' || isNamedNow(d, m));
}
function memberOf(d: Draft, identity: string, pod: Pod | undefined, all: Claim[]): Bare {
  const { s } = d;
  all.sort((a, b) => a.meta.createdMs - b.meta.createdMs || (a.meta.name < b.meta.name ? -1 : 1));
  // Once it has a pod or a seal, its claims are exactly those that these name.
  const names = pod ? pod.claims : sealOf(all[0]);
  const isNamed = ({ meta }: Claim): boolean => names.includes(meta.name);
  const claims = pod || names.length > 0 ? all.filter(isNamed) : all;
  const first = claims[0];
  const isOver =
    claims.length > 0 ? claims.every(isMarked) : pod !== undefined && isTerminating(pod);
  const index = first?.meta.labels[MARK.index] ?? pod?.meta.labels[MARK.index] ?? identity;
  return {
    identity,
    pod,
    claims,
    leftovers: all.filter((c) => !claims.includes(c)),
    life:
      isOver && !hasUnread(d, identity, pod)
        ? 'over'
        : first && isMarked(first)
          ? 'ending'
          : 'live',
    retired: first ? retiredOf(first) : pod && endOfClaimless(s, identity, pod),
    isBlocked: pod ? '' : blockerOf(d, identity),
    index: /^\d{1,9}$/.test(index) ? Number(index) : undefined,
    node: nodeWord(s, pod?.node ?? ''),
  };
}
/** Does its pod mount a claim of its identity that the cache lacks? It may have lost its labels. */
function hasUnread(d: Draft, identity: string, pod: Pod | undefined): boolean {
  const own = `-${d.s.cluster.meta.name}-${identity}`;
  const absent = (pod?.claims ?? []).filter((c) => c.endsWith(own) && !d.s.claims.has(c));
  return !isRead(d, identity, ...absent.map((c) => refOf('persistentvolumeclaims', c)));
}
/** A mark with a known Reason; or any, on a claim that a user wants to be restored. */
const isMarked = ({ meta: { annotations } }: Claim): boolean =>
  (annotations[MARK.retired] ?? '') in ENDS ||
  (MARK.retired in annotations && annotations[MARK.restore] === 'true');
function retiredOf({ meta }: Claim): Retired | undefined {
  const reason = meta.annotations[MARK.retired];
  if (reason === undefined) return undefined;
  const at = Date.parse(meta.annotations[MARK.retiredAt] ?? '');
  const isTrue = at >= meta.createdMs && at < meta.createdMs + 100 * 365 * 86_400_000;
  return {
    reason: reason in ENDS ? (reason as EndReason) : 'Released',
    atMs: isTrue ? at : meta.createdMs,
  };
}
/** A member without claims is over when its pod goes; why, this process knows if it did that. */
function endOfClaimless(s: Snapshot, identity: string, pod: Pod): Retired | undefined {
  if (pod.meta.deletedMs === undefined) return undefined;
  const usual = pod.disruption ? 'PodEvicted' : 'PodDeleted';
  const returns = pod.meta.annotations[MARK.returns];
  const told = returns === 'Suspended' ? 'Suspended' : returns ? 'Updated' : usual;
  const reason = s.desk.went.get(identity)?.reason ?? told;
  return { reason, atMs: pod.meta.deletedMs - pod.graceSeconds * 1000 };
}

/** Whose object stands where its next pod, or a claim of it, would: of a former cluster (it is
 *  waited for), an orphan that may be adopted, or a foreign one. */
function blockerOf(d: Draft, identity: string): string {
  const { s } = d;
  const { cluster } = s;
  const names = claimTemplateNames(cluster.spec).map((t) =>
    claimName(t, cluster.meta.name, identity),
  );
  const isTold = s.desk.backoff.has(`taken/${identity}`);
  const claimRefs = names.map((name) => refOf('persistentvolumeclaims', name));
  if (isTold && !isRead(d, identity, podRef(s, { identity }), ...claimRefs)) return '';
  const pod = s.pods.get(podName(cluster.meta.name, identity));
  const isForeign = (claim: Claim | undefined): boolean =>
    claim !== undefined &&
    !(MARK.claims in claim.meta.annotations || MARK.retired in claim.meta.annotations);
  const blocker = pod ?? names.map((name) => s.claims.get(name)).find(isForeign);
  if (!blocker) return '';
  if (isOfFormer(blocker.meta, cluster.meta)) return `former ${blocker.meta.name}`;
  const isOrphan = pod && isUp(pod) && !hasController(pod.meta) && !isTakenOut(s, pod);
  return `${isOrphan ? 'orphan' : 'foreign'} ${blocker.meta.name}`;
}
/** Claims none of which a template of the spec or of a revision in use names make no member. */
function isNamedNow(d: Draft, { identity, claims }: Bare): boolean {
  const { cluster, revisions, pods } = d.s;
  const used = [...pods.values()].map((pod) => pod.meta.labels[MARK.revision]);
  const inUse = [...revisions.values()].filter(
    ({ hash }) => used.includes(hash) || hash === cluster.status.currentRevision,
  );
  const templates = [
    ...claimTemplateNames(cluster.spec),
    ...inUse.flatMap((r) => r.claimTemplates),
  ];
  const names = templates.map((t) => claimName(t, cluster.meta.name, identity));
  if (claims.some(({ meta }) => names.includes(meta.name))) return true;
  d.notes.push(`no claim template names ${fewNames(claims.map((c) => c.meta.name))}`);
  return false;
}
/** Identities of which there are only objects of a former cluster of this name: they hold a place
 *  until garbage collection takes these or frees them. */
function formerOf(d: Draft, members: readonly Member[]): number {
  const { cluster, pods, claims } = d.s;
  const all = [...pods.values(), ...claims.values()].filter(({ meta }) =>
    isOfFormer(meta, cluster.meta),
  );
  const ids = all.map(({ meta }) => meta.labels[MARK.identity] ?? '');
  const others = unique(ids).filter((id) => members.every((m) => m.identity !== id));
  if (others.length > 0)
    d.notes.push(`what a former ${cluster.meta.name} left is waited for: ${fewNames(others)}`);
  return others.length;
}
const isLive = (m: Pick<Member, 'life'>): boolean => m.life === 'live';
const isReady = (m: Member): boolean => m.state === 'Ready' || m.state === 'Available';
const nameOf = (m: Pick<Member, 'identity'>): string => m.identity;

// ─── The brake ───────────────────────────────────────────────────────────────────────────────────

type Judged = Omit<Member, 'state'>;
const isJudgement = (reason: string): boolean => ENDS[reason as EndReason]?.kind === 'judgement';

/** Who of the judged is let go now, and why the others are withheld. `out` counts each once: who is
 *  judged, who is or can only be on nodes that are silent or gone, and the places and successors of
 *  judged ends that are not well yet. A judged member goes while out ≤ limit, so no outage makes a
 *  cluster give itself up, and the only copy is, by default, never given up by a judgement. */
function planBrake(d: Draft, all: readonly Judged[], r: Revisions, random: () => number) {
  const { spec } = d.s.cluster;
  const judged = all.filter((m) => m.end?.dueInMs === 0 && isJudgement(m.end.reason));
  const limit = maxReplacementsOf(spec);
  const out = judged.length > 0 ? outOf(d, all, judged) : 0;
  const go = new Set<string>();
  const withheld = new Map<string, string>();
  for (const m of judged) {
    // Nothing was written to its claims: it is let go without brake.
    const isFree = m.claims.length > 0 && m.claims.every(isNeverBound);
    const braked = out > limit && !isFree ? `out are ${out}, and at most ${limit} may be` : '';
    const why = braked || heirProblem(d, all, m, r, random);
    if (why) withheld.set(m.identity, why);
    else if (isGuarded(d, m)) go.add(m.identity);
  }
  const held = judged.filter((m) => withheld.has(m.identity));
  return { go, withheld, why: withheldText(d, held, withheld) };
}
function outOf(d: Draft, all: readonly Judged[], judged: readonly Judged[]): number {
  const { s, now } = d;
  const live = all.filter(isLive);
  const isAway = (m: Judged): boolean => {
    if (m.node === 'silent' || m.node === 'gone') return true;
    if (isRunning(m) || m.claims.length === 0 || !readsVolumes(d, m)) return false;
    const words = nodesAllowed(d, m)?.map((node) => nodeWord(s, node.meta.name));
    return words?.every((word) => word !== 'open' && word !== 'closed') === true;
  };
  const isHeir = ({ pod, claims, identity }: Judged): boolean => {
    const made = pod ?? claims[0];
    if (!made || !isJudgement(predecessorOf(made.meta)?.reason ?? '')) return false;
    return pod ? !wasReady(pod) : now - birthMs(identity) < LIMITS.earlyEndMs;
  };
  const out = live.filter((m) => judged.includes(m) || isAway(m) || isHeir(m)).length;
  const places = Math.max(0, s.cluster.spec.replicas - live.length);
  const awaited = endsToFill(d, all, new Map()).filter((end) => isJudgement(end.reason));
  return out + Math.min(places, awaited.length);
}
/** The brake's limit: `liveness.maxReplacements`, or max(1, ⌊(replicas−1)/2⌋), 0 at 1 replica. */
export function maxReplacementsOf(spec: Spec): number {
  const usual = spec.replicas <= 1 ? 0 : Math.max(1, Math.floor((spec.replicas - 1) / 2));
  const { maxReplacements } = spec.liveness;
  return maxReplacements === undefined
    ? usual
    : scaledValue(maxReplacements, spec.replicas, 'down');
}
/** I10: what rests on nodes, volumes or absence is acted upon only after these were read live in this
 *  pass, so a stale cache gives no member up. Each end rests on the cluster as it is, see planEnds. */
function isGuarded(d: Draft, m: Judged): boolean {
  const { s } = d;
  const allowed = isRunning(m) ? [] : (nodesAllowed(d, m) ?? []).map((node) => node.meta.name);
  const names = unique([lastNodeOf(s, m), ...allowed.slice(0, LIMITS.liveReadsMax)]);
  const nodes = s.nodes ? names.filter(Boolean) : [];
  const claims = ['VolumeLost', 'ClaimGone'].includes(m.end?.reason ?? '') ? m.claims : [];
  return isRead(
    d,
    m.identity,
    podRef(s, m),
    ...nodes.map((name) => refOf('nodes', name)),
    ...claims.map((c) => refOf('persistentvolumeclaims', c.meta.name)),
  );
}
/** Why a successor could not be made now, or ''. Its claims and pod are tried first; a full quota
 *  of pods is no objection where the old pod counts in it. */
function heirProblem(
  d: Draft,
  all: readonly Judged[],
  m: Judged,
  r: Revisions,
  random: () => number,
): string {
  const { s, now } = d;
  const refused = waiting(s.desk.backoff, makeKey(s.cluster), s.uptime);
  if (refused) return `no successor can be made: ${refused.message}`;
  if (birthHoldMs(d, all) > 0) return 'new members keep ending soon after their birth';
  const [identity = ''] = allocate(1, identitiesOf(s), now, random);
  const trial = trialOf(s, 'heir', identity, nextRevision(d, all, r)(), true);
  isRead(d, '', trial);
  const words = s.answers.get(keyOfRef(trial)) ?? '';
  return words === '' || isQuotaOfPods(words, m.pod) ? '' : `no successor can be made: ${words}`;
}
const isQuotaOfPods = (words: string, old: Pod | undefined): boolean =>
  old !== undefined && /pods? "[^"]*" is forbidden: exceeded quota/.test(words);
/** A dry-run of the next pod of an identity, and of its claims. */
function trialOf(
  s: Snapshot,
  name: string,
  identity: string,
  revision: Revision,
  withClaims: boolean,
): Ref {
  const pod = podBody(s.cluster, identity, revision, { nodesReadable: s.nodes !== undefined });
  const names = withClaims ? claimTemplateNames(s.cluster.spec) : [];
  const claims = names
    .filter((template) => revision.claimTemplates.includes(template))
    .map((template) => claimBody(s.cluster, identity, template, {}));
  return { kind: 'trials', name, bodies: [...claims, pod] };
}
/** Who waits, why, and each way out that really works. */
function withheldText(d: Draft, held: readonly Judged[], why: ReadonlyMap<string, string>): string {
  if (held.length === 0) return '';
  const { replicas } = d.s.cluster.spec;
  const who = held.map((m) => `${m.identity} ${m.end?.reason}`);
  const target = held.every((m) => m.pod)
    ? 'its pod'
    : 'its pod or, if there is none, a claim of it';
  const ways = [
    'when their nodes or volumes are back',
    'when spec.liveness.maxReplacements is raised',
    `a member ends at once when ${target} is annotated ${MARK.replace}=true`,
  ];
  const because = fewNames(unique(why.values()));
  return `${held.length} of ${replicas} members are judged and wait (${fewNames(who)}): ${because}; ${ways.join('; ')}`;
}

// ─── Ends ────────────────────────────────────────────────────────────────────────────────────────

/** Ends whose end is due, and finishes what a crash left half-marked. One guard for all: nothing is
 *  marked or deleted before the cluster was read live in this pass. Returns who ends now. */
function planEnds(
  d: Draft,
  members: readonly Member[],
  go: ReadonlySet<string>,
): Map<string, EndReason> {
  const ending = new Map<string, EndReason>();
  for (const m of members) {
    const { end, retired } = m;
    if (!isLive(m)) {
      if (retired) planEnd(d, m, retired.reason);
    } else if (end?.dueInMs === 0) {
      const rests = ['NodeOutOfService', 'ClaimGone'].includes(end.reason) && !isGuarded(d, m);
      const isSafe = isJudgement(end.reason) ? go.has(m.identity) : !rests;
      if (isSafe && end.reason !== 'ReplaceRequested') ending.set(m.identity, end.reason);
    } else if (m.isBlocked.startsWith('foreign') && m.claims.every(isNeverBound)) {
      ending.set(m.identity, 'NameTaken');
    }
  }
  for (const m of doubledIndex(members)) ending.set(m.identity, 'IndexTaken');
  for (const m of requestsServed(d, members, ending)) ending.set(m.identity, 'ReplaceRequested');
  return ending.size > 0 && !endAll(d, members, ending) ? new Map() : ending;
}
/** I10: the wish of the cluster's user is read live before anybody ends for it. */
function endAll(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
): boolean {
  if (!isRead(d, '', clusterRef(d.s))) return false;
  for (const m of members) {
    const reason = ending.get(m.identity);
    if (reason) planEnd(d, m, reason);
  }
  return true;
}

/** Marks every claim, oldest first, and then deletes the pod, so that a crash leaves no member
 *  ended and unmarked. What is done of it already is not done again. A pod that its user took out
 *  of the selector is let go of, and never deleted. */
function planEnd(d: Draft, m: Member, because: EndReason): void {
  const { pod, identity } = m;
  const { meta } = d.s.cluster;
  for (const claim of isWantedBack(m) ? [] : [...m.claims, ...m.leftovers]) {
    if (isMarked(claim)) continue;
    const change = retirement(d, m, claim, because);
    d.actions.push({
      do: 'Patch',
      verb: 'retire',
      kind: CLAIMS,
      object: claim,
      change,
      because,
      identity,
    });
  }
  if (!pod) return;
  if (because === 'Released') {
    const change = { metadata: { ownerReferences: othersOf(pod, meta) } };
    if (isControlledBy(pod.meta, meta.uid) && !isTerminating(pod))
      d.actions.push({
        do: 'Patch',
        verb: 'release',
        kind: PODS,
        object: pod,
        change,
        because,
        identity,
      });
  } else if (!isTerminating(pod)) {
    d.actions.push({ do: 'Delete', verb: 'end', kind: PODS, object: pod, because, identity });
  }
}
/** The mark of an end, with the policy of its moment. Retained data outlives the cluster, so its
 *  owner reference goes; what a former cluster of this name kept is kept whatever the moment. */
function retirement(d: Draft, m: Member, claim: Claim, because: EndReason): Json {
  const { meta, spec } = d.s.cluster;
  const moment = ENDS[because].policy;
  const isOlder = claim.meta.createdMs < meta.createdMs && !m.pod;
  const isKept = moment === 'Retain' || isOlder;
  const policy = isKept ? 'Retain' : spec.persistentVolumeClaimRetentionPolicy[moment];
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
const PODS = 'pods';
const CLAIMS = 'persistentvolumeclaims';
const REVISIONS = 'controllerrevisions';
const othersOf = ({ meta }: { meta: Meta }, { uid }: Meta): readonly Owner[] =>
  meta.owners.filter((o) => o.uid !== uid);

/** I5: at most so many Available members are taken down by us. */
function spareOf(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
  least = 0,
): number {
  const { spec } = d.s.cluster;
  const staying = members.filter((m) => m.state === 'Available' && !ending.has(m.identity));
  return Math.max(0, staying.length - (spec.replicas - Math.max(least, maxUnavailableOf(spec))));
}
/** Members that a user asked to replace and that may go now: those that are not Available at once,
 *  the others while enough stay Available (I5), oldest request first. */
function requestsServed(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
): readonly Member[] {
  const asked = members.filter((m) => isLive(m) && m.end?.reason === 'ReplaceRequested');
  const seenAt = (m: Member): number => d.s.desk.seen.get(m.end?.evidence ?? '') ?? d.s.uptime;
  const up = asked.filter((m) => m.state === 'Available').sort((a, b) => seenAt(a) - seenAt(b));
  const served = up.slice(0, spareOf(d, members, ending, 1));
  const rest = asked.filter((m) => m.state !== 'Available');
  return [...rest, ...(isReliedOn(d, members, served) ? served : [])];
}
/** I5 rests on the others being Available: that is read live before Available ones go. */
function isReliedOn(d: Draft, members: readonly Member[], going: readonly Member[]): boolean {
  if (!going.some((m) => m.state === 'Available')) return true;
  const relied = members.filter((m) => m.state === 'Available' && !going.includes(m));
  return isRead(d, '', ...relied.slice(0, LIMITS.liveReadsMax).map((m) => podRef(d.s, m)));
}
/** The younger of two live members with one index. */
function doubledIndex(members: readonly Member[]): readonly Member[] {
  const held = new Set<number>();
  return members.filter((m) => {
    if (!isLive(m) || m.index === undefined) return false;
    const isHeld = held.has(m.index) && m.pod !== undefined;
    held.add(m.index);
    return isHeld;
  });
}

// ─── Places ──────────────────────────────────────────────────────────────────────────────────────

/** Known ends that the next births may name, newest first: those of this pass, of the marks, and of
 *  this process; for 10 min, or as long as members cannot be made at all. */
function endsToFill(
  d: Draft,
  all: readonly Judged[],
  ending: ReadonlyMap<string, EndReason>,
): readonly Known[] {
  const { s, now } = d;
  const isHeld = s.desk.backoff.has(makeKey(s.cluster));
  const surges = maxSurgeOf(s.cluster.spec) > 0;
  const named = [...s.pods.values(), ...s.claims.values()].flatMap(({ meta }) => {
    const old = predecessorOf(meta);
    return old ? [{ identity: old.identity, atMs: meta.createdMs }] : [];
  });
  const isFilled = ({ identity, atMs }: Known): boolean =>
    named.some((n) => n.identity === identity && n.atMs >= atMs - 1000);
  return knownEnds(d, all, ending)
    .filter((end) => ENDS[end.reason].heir && !(end.reason === 'Updated' && surges))
    .filter((end) => (isHeld || now - end.atMs <= LIMITS.earlyEndMs) && !isFilled(end))
    .sort((a, b) => b.atMs - a.atMs || byAge(b.identity, a.identity));
}
interface Known extends Retired {
  readonly identity: string;
  readonly isClaimless: boolean;
}
function knownEnds(
  d: Draft,
  all: readonly Judged[],
  ending: ReadonlyMap<string, EndReason>,
): readonly Known[] {
  const found = new Map<string, Known>();
  for (const [identity, { reason, atMs, pod }] of d.s.desk.went) {
    if (reason)
      found.set(identity, { identity, reason, atMs, isClaimless: pod?.claims.length === 0 });
  }
  for (const m of all) {
    const reason = ending.get(m.identity);
    const end = reason ? { reason, atMs: d.now } : isLive(m) ? undefined : m.retired;
    if (end)
      found.set(m.identity, { ...end, identity: m.identity, isClaimless: m.claims.length === 0 });
    else found.delete(m.identity); // It was restored.
  }
  return [...found.values()];
}

/** A broken template must not burn through identities: 10 s doubling to 5 min from the second end
 *  that speaks against it within 10 min of a birth, or from more other ends that nobody asked for
 *  than max(3, replicas). Ends found in one pass are one. Node and volume evidence never counts. */
function birthHoldMs(d: Draft, all: readonly Judged[]): number {
  const { now, s } = d;
  const early = knownEnds(d, all, new Map()).filter(
    ({ identity, atMs }) =>
      birthSecond(identity) >= 0 &&
      atMs - birthMs(identity) <= LIMITS.earlyEndMs &&
      now - atMs <= LIMITS.earlyEndMs &&
      atMs <= now + 1000, // Written while a clock was ahead: no hold may last that long.
  );
  const timesOf = (isMeant: (end: Known) => boolean): number[] =>
    unique(early.filter(isMeant).map((end) => Math.floor(end.atMs / 1000)));
  const broken = timesOf(({ reason }) => ENDS[reason].early === 'template');
  const unasked = timesOf(
    ({ reason, isClaimless: bare }) =>
      ENDS[reason].early === 'unasked' || (bare && ENDS[reason].early === 'claimless'),
  );
  const times =
    Math.max(0, broken.length - 1) +
    Math.max(0, unasked.length - Math.max(3, s.cluster.spec.replicas));
  if (times === 0) return 0;
  const last = Math.max(...broken, ...unasked) * 1000;
  return Math.max(0, last + doubled(times) - now);
}

/** Every identity of ours of which there is a trace. One that is far ahead of its object is forged,
 *  and moves no clock. */
function identitiesOf(s: Snapshot): readonly string[] {
  const { cluster, pods, claims, desk } = s;
  const { name, uid } = cluster.meta;
  const isPlausible = (identity: string, { createdMs }: Meta): boolean =>
    birthMs(identity) <= createdMs + LIMITS.futureMaxMs;
  const own = [...pods.values()].flatMap((pod) => {
    const identity = identityOf(pod, name);
    return isControlledBy(pod.meta, uid) ? [identity] : [];
  });
  const held = [...claims.values()].flatMap(({ meta }) => {
    const identity = meta.labels[MARK.identity] ?? '';
    return MARK.claims in meta.annotations && isPlausible(identity, meta) ? [identity] : [];
  });
  return [...own, ...held, ...desk.went.keys(), cluster.status.newestIdentity ?? ''];
}

/** Places. I4: pods of live members never exceed replicas + surge. The surplus is scaled in; whoever
 *  is between two pods returns; what is left is for restores and births. */
function planPlaces(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
  r: Revisions,
  random: () => number,
): void {
  const { s, now } = d;
  const { spec } = s.cluster;
  const live = members.filter((m) => isLive(m) && !ending.has(m.identity));
  const surge = Math.min(maxSurgeOf(spec), behindOf(s, live, r));
  const count = live.length + formerOf(d, members);
  const surplus = live.length - spec.replicas - surge;
  if (surplus > 0) return planScaleIn(d, members, live, surplus, r);
  const places =
    spec.replicas + surge - count - planAdoption(d, live, spec.replicas + surge - count);
  if (spec.suspend) return planSuspension(d, members, live, places);
  const refused = waiting(s.desk.backoff, makeKey(s.cluster), s.uptime);
  if (refused) return void (d.waits = refused.message);
  const next = nextRevision(d, live, r);
  const returns = live.filter((m) => returnsNow(d, m)).map((m) => backOf(d, m, members, next(m)));
  const births = places > 0 ? planBirths(d, members, live, ending, places, next, random) : [];
  const isOrdered = spec.podManagementPolicy === 'OrderedReady';
  const waits = isOrdered && members.some((m) => isComingUp(m, now) || isLeaving(m, now));
  if (waits) d.wakes.push(LIMITS.leavingMaxMs);
  d.actions.push(
    ...[...returns, ...births.slice(0, waits ? 0 : isOrdered ? 1 : Infinity)].slice(
      0,
      LIMITS.batchMax,
    ),
  );
}

/** Does its next pod come now? Its name is the lock: the API server refuses it while the former pod
 *  object exists. One that is terminal goes first; a pod that ends again and again comes slowly. */
function returnsNow(d: Draft, m: Member): boolean {
  const { desk, uptime } = d.s;
  const { pod, identity } = m;
  if (pod && isTerminal(pod) && !isTerminating(pod) && m.state !== 'Withheld') {
    if (isRead(d, '', clusterRef(d.s))) leaveAndReturn(d, m, 'Returned');
    return false;
  }
  if (pod || m.claims.some(isTerminating)) return false;
  if (m.isBlocked !== '') {
    if (m.isBlocked.startsWith('foreign')) {
      d.blocked ||= `${m.isBlocked.slice(8)} stands in the way of ${identity}`;
      d.wakes.push(LIMITS.trialMs); // It has none of our labels: no event tells that it went.
    }
    return false;
  }
  const waits = ['return', 'taken'].some((key) =>
    waiting(desk.backoff, `${key}/${identity}`, uptime),
  );
  return !waits && !desk.vanished.has(`pods/${podName(d.s.cluster.meta.name, identity)}`);
}
/** What its next pod takes: claims that it has, those that it never had are made. */
function backOf(d: Draft, m: Member, members: readonly Member[], revision: Revision): Make {
  const { cluster, desk, claims } = d.s;
  const absent = revision.claimTemplates.filter(
    (t) => !claims.has(claimName(t, cluster.meta.name, m.identity)),
  );
  const isBorn = m.claims.every((c) => c.meta.annotations[MARK.claims] === '' && isNeverBound(c));
  const wasAnnounced = desk.went.get(m.identity)?.pod?.meta.annotations[MARK.returns];
  const replaces = isBorn ? m.claims[0]?.meta.annotations[MARK.replaces] : undefined;
  const filled = m.claims[0] && (predecessorOf(m.claims[0].meta)?.reason as EndReason | undefined);
  const index = indexFor(d, members, m);
  return {
    do: 'Make',
    verb: 'make',
    identity: m.identity,
    revision,
    claims: absent.filter((t) => claimTemplateNames(cluster.spec).includes(t)),
    index,
    because: isBorn
      ? (filled ?? 'ScaledOut')
      : wasAnnounced === 'Recreated'
        ? 'Recreated'
        : 'Returned',
    ...(replaces !== undefined && { replaces }),
  };
}
/** Deletes a pod whose member comes back: the mark on it goes first, so that nobody takes the
 *  deletion for an end. */
function leaveAndReturn(
  d: Draft,
  m: Member,
  because: 'Recreated' | 'Suspended' | 'Returned',
): void {
  const { pod, identity, claims } = m;
  if (!pod || isTerminating(pod)) return;
  const change = { metadata: { annotations: { [MARK.returns]: because } } };
  const about = { kind: PODS, object: pod, identity } as const;
  const end =
    claims.length === 0 && because !== 'Returned'
      ? because === 'Recreated'
        ? 'Updated'
        : because
      : because;
  if (pod.meta.annotations[MARK.returns] !== because)
    d.actions.push({ do: 'Patch', verb: 'announce', change, because: end, ...about });
  d.actions.push({ do: 'Delete', verb: 'end', because: end, ...about });
}

/** Restores first, then new members. The first of them take the places of who ends in this pass, and
 *  wait for that; each names the newest end that no member replaces yet. */
function planBirths(
  d: Draft,
  members: readonly Member[],
  live: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
  places: number,
  next: (m?: Member) => Revision,
  random: () => number,
): readonly Make[] {
  const { s, now } = d;
  const holdMs = birthHoldMs(d, members);
  if (holdMs > 0) {
    d.wakes.push(holdMs);
    d.waits = `new members keep ending soon after their birth; the next comes in ${Math.ceil(holdMs / 1000)} s`;
    return [];
  }
  const indices = freeIndices(d, members, ending);
  const restored = planRestores(d, members, places, indices);
  // What left the watch and was not found again is no member; what has no answer may be one.
  const isBlind = [...s.desk.vanished].some((key) => (s.answers.get(key) ?? 'open') !== '');
  const most = Math.min(places - restored, LIMITS.batchMax, indices.left());
  if (most <= 0 || isBlind) return [];
  const ends = endsToFill(d, members, ending);
  const after = [...ending.keys()];
  return allocate(most, identitiesOf(s), now, random).map((identity, i): Make => {
    const end = ends[i];
    const revision = next();
    const isSurge = live.length + restored + i >= s.cluster.spec.replicas;
    return {
      do: 'Make',
      verb: 'make',
      identity,
      revision,
      claims: revision.claimTemplates,
      index: indices.take(),
      because: end ? end.reason : isSurge ? 'Updated' : 'ScaledOut',
      ...(end && { replaces: `${end.identity} ${end.reason}` }),
      ...(after[i] !== undefined && { after: after[i] }),
    };
  });
}

const isWantedBack = ({ claims }: Member): boolean =>
  claims.some((c) => isMarked(c) && c.meta.annotations[MARK.restore] === 'true');
/** Retired claims that a user wants back, oldest identity first, while there are places. All of them
 *  get the wish first, then each loses its marks, the oldest last: so it is finished, never undone.
 *  Returns how many places that takes. */
function planRestores(
  d: Draft,
  members: readonly Member[],
  places: number,
  indices: Indices,
): number {
  const wanted = members.filter((m) => m.retired && isWantedBack(m));
  const open = wanted.filter((m) => {
    const isFree = !m.pod && m.isBlocked === '' && !m.claims.some(isTerminating);
    return isFree && isRead(d, m.identity, podRef(d.s, m)) && isRead(d, '', clusterRef(d.s));
  });
  const later = wanted.filter((m) => !open.slice(0, places).includes(m)).map(nameOf);
  if (later.length > 0)
    d.notes.push(`restored once there is room and its pod is gone: ${fewNames(later)}`);
  for (const m of open.slice(0, places)) {
    const index = indices.take(m.index);
    const because = 'Restored';
    const about = {
      do: 'Patch',
      verb: 'restore',
      kind: CLAIMS,
      because,
      identity: m.identity,
    } as const;
    const shy = m.claims.filter((c) => isMarked(c) && c.meta.annotations[MARK.restore] !== 'true');
    const wish = { metadata: { annotations: { [MARK.restore]: 'true' } } };
    for (const object of shy) d.actions.push({ ...about, object, change: wish });
    const cleared = [MARK.retired, MARK.retiredAt, MARK.retiredPolicy, MARK.restore];
    const annotations = {
      ...Object.fromEntries(cleared.map((key) => [key, null])),
      [MARK.claims]: m.claims
        .map((c) => c.meta.name)
        .sort()
        .join(' '),
    };
    const labels = { [MARK.retired]: null, ...indexLabel({ index }) };
    const marked = m.claims.filter(isMarked).reverse();
    for (const object of shy.length > 0 ? [] : marked)
      d.actions.push({ ...about, object, change: { metadata: { labels, annotations } } });
  }
  return Math.min(places, open.length);
}

/** Pods go, identities and claims stay: each comes back as itself on resume. One whose claim is
 *  being deleted could not. Restores work. */
function planSuspension(
  d: Draft,
  members: readonly Member[],
  live: readonly Member[],
  places: number,
): void {
  planRestores(d, members, places, freeIndices(d, members, new Map()));
  const isOrdered = d.s.cluster.spec.podManagementPolicy === 'OrderedReady';
  const leaves = live.some(
    ({ pod }) => pod && isTerminating(pod) && d.now < pod.meta.deletedMs! + LIMITS.leavingMaxMs,
  );
  if (isOrdered && leaves) return void d.wakes.push(LIMITS.leavingMaxMs);
  const open = live.filter((m) => m.pod && !isTerminating(m.pod) && !m.claims.some(isTerminating));
  if (open.length === 0 || !isRead(d, '', clusterRef(d.s))) return;
  for (const m of open.reverse().slice(0, isOrdered ? 1 : Infinity))
    leaveAndReturn(d, m, 'Suspended');
}

/** Orphans that match the selector: one that mounts exactly the claims of a live member without a
 *  pod is that member's; one without claims is adopted where a place is free. Returns how many
 *  places that takes. */
function planAdoption(d: Draft, live: readonly Member[], places: number): number {
  const { s } = d;
  const { meta } = s.cluster;
  let free = Math.max(0, places);
  for (const pod of s.pods.values()) {
    const identity = identityOf(pod, meta.name);
    if (hasController(pod.meta) || !isUp(pod) || isTakenOut(s, pod)) continue;
    const m = live.find((one) => one.identity === identity);
    const isWhole =
      m &&
      !m.pod &&
      m.claims
        .map((c) => c.meta.name)
        .sort()
        .join() === [...pod.claims].sort().join();
    const isNew =
      !m && pod.claims.length === 0 && pod.meta.labels[MARK.identity] === identity && free-- > 0;
    if ((!isWhole && !isNew) || identity === '' || !isRead(d, identity, clusterRef(s))) continue;
    const ownerReferences = [...pod.meta.owners, ownerOf(s.cluster)];
    const change = { metadata: { ownerReferences } };
    d.actions.push({
      do: 'Patch',
      verb: 'adopt',
      kind: PODS,
      object: pod,
      change,
      because: 'Adopted',
      identity,
    });
  }
  return Math.max(0, places - Math.max(0, free));
}

/** Indices for members that are made now: the smallest that no live member holds. One that is held
 *  only by an identity that is over is waited for, unless its pod is on a node that cannot run it. */
interface Indices {
  left(): number;
  take(wanted?: number): number | undefined;
}
function freeIndices(
  { s }: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
): Indices {
  const { ordinals, replicas } = s.cluster.spec;
  if (!ordinals) return { left: () => Infinity, take: () => undefined };
  const { start } = ordinals;
  const isOver = (m: Member): boolean => !isLive(m) || ending.has(m.identity);
  const isDead = (m: Member): boolean =>
    isOver(m) &&
    (!m.pod || ['silent', 'gone', 'outOfService'].includes(m.node)) &&
    m.life !== 'ending';
  const held = new Set(members.filter((m) => !isDead(m)).map((m) => m.index));
  const live = new Set(members.filter((m) => !isOver(m)).map((m) => m.index));
  const range = Array.from({ length: replicas }, (_, i) => start + i);
  const leaving = range.filter((i) => held.has(i) && !live.has(i)).length;
  const open = range.filter((i) => !held.has(i));
  return {
    left: () => Math.max(0, leaving > 0 ? open.length : Infinity),
    take(wanted) {
      const keeps = wanted !== undefined && wanted >= start && !held.has(wanted);
      let index = keeps ? wanted : start;
      while (held.has(index)) index++;
      held.add(index);
      return index;
    },
  };
}
/** The index of a member that comes back: its own, or the smallest free one if it has none. */
function indexFor(d: Draft, members: readonly Member[], m: Member): number | undefined {
  if (!d.s.cluster.spec.ordinals || m.index !== undefined) return m.index;
  const index = freeIndices(d, members, new Map()).take();
  const change = { metadata: { labels: indexLabel({ index }) } };
  for (const object of m.claims)
    d.actions.push({
      do: 'Patch',
      verb: 'seal',
      kind: CLAIMS,
      object,
      change,
      because: 'Sealed',
      identity: m.identity,
    });
  return index;
}

/** Ends the surplus, what is worth least first; a stale cache must not shrink a cluster, so the wish
 *  to is read live. */
function planScaleIn(
  d: Draft,
  members: readonly Member[],
  live: readonly Member[],
  surplus: number,
  { update }: Revisions,
): void {
  const isOrdered = d.s.cluster.spec.podManagementPolicy === 'OrderedReady';
  if (!isRead(d, '', clusterRef(d.s))) return;
  if (isOrdered && members.some((m) => isLeaving(m, d.now))) {
    return void d.wakes.push(LIMITS.leavingMaxMs);
  }
  const leaving = scaleInOrder(live, update.hash).slice(0, isOrdered ? 1 : surplus);
  for (const m of leaving) planEnd(d, m, 'ScaledIn');
}

/** The order of scale-in, as DESIGN.md section 6 has it: what is worth least goes first. */
export function scaleInOrder(all: readonly Member[], updateRevision: string): readonly Member[] {
  const perNode = new Map<string, number>();
  for (const { pod } of all) perNode.set(pod?.node ?? '', (perNode.get(pod?.node ?? '') ?? 0) + 1);
  const ranks = (m: Member): readonly number[] => {
    const { pod, claims, state, end } = m;
    const isDue = state === 'Withheld' || end?.dueInMs === 0;
    // Its present pod is its first: it names whom it replaces, or nothing was bound or sealed yet.
    const isUnsealed = claims.every((c) => sealOf(c).length === 0 && !isBound(c));
    const isFirst = pod && (MARK.replaces in pod.meta.annotations || isUnsealed);
    const wasNever = (isFirst ?? isUnsealed) && !(pod && wasReady(pod));
    const cost = Number.parseInt(pod?.meta.annotations[MARK.deletionCost] ?? '0', 10);
    return [
      isDue ? 0 : 1,
      claims.length > 0 && claims.every(isNeverBound) ? 0 : 1,
      wasNever ? 0 : 1,
      pod?.ready ? 1 : 0,
      state === 'Available' ? 1 : 0,
      Number.isNaN(cost) ? 0 : cost,
      pod?.meta.labels[MARK.revision] === updateRevision ? 1 : 0,
      -(perNode.get(pod?.node ?? '') ?? 0),
    ];
  };
  const ranked = all.map((m) => ({ m, rank: ranks(m) }));
  ranked.sort((a, b) => {
    const at = a.rank.findIndex((value, i) => value !== b.rank[i]);
    return at < 0 ? byAge(b.m.identity, a.m.identity) : (a.rank[at] ?? 0) - (b.rank[at] ?? 0);
  });
  return ranked.map(({ m }) => m);
}

/** Being brought up: OrderedReady waits for it, but not for one that is due, has no open node, or
 *  takes too long. */
function isComingUp(m: Member, now: number): boolean {
  const isStuck = m.end && (m.end.dueInMs === 0 || /^(Node|Volume|PodEvicted)/.test(m.end.reason));
  if (!isLive(m) || isStuck) return false;
  if (!m.pod) return m.claims.every(isNeverBound);
  const isYoung = now - m.pod.meta.createdMs < LIMITS.bringUpMaxMs;
  return m.state === 'Ready' || (['Pending', 'Starting'].includes(m.state) && isYoung);
}
/** Its pod goes, and is not overdue. */
const isLeaving = ({ pod, life }: Member, now: number): boolean =>
  life !== 'live' && now < (pod?.meta.deletedMs ?? 0) + LIMITS.leavingMaxMs;

// ─── Revisions ───────────────────────────────────────────────────────────────────────────────────

/** The update revision, and the one that most of the other live members have. Without a pod that
 *  shows one, the status says; it moves to the update revision when all live members have that. */
function revisionsOf(s: Snapshot, members: readonly Judged[]): Revisions {
  const { update, collisionCount } = updateRevisionOf(s.cluster, s.revisions);
  const live = members.filter(isLive);
  const goals = live.map((m) => goalOf(m.pod));
  const counts = new Map<string, number>();
  for (const hash of goals) {
    if (hash !== update.hash) counts.set(hash, (counts.get(hash) ?? 0) + 1);
  }
  const isThrough = goals.length > 0 && goals.every((hash) => hash === update.hash);
  const told = isThrough || s.cluster.spec.replicas === 0 ? '' : s.cluster.status.currentRevision;
  const older = [...s.revisions.values()].filter(
    (x) => isControlledBy(x.meta, s.cluster.meta.uid) && x.hash !== update.hash,
  );
  const most = (x: Revision): number => (counts.get(x.hash) ?? 0) + x.number / 1e9;
  const shown = older.filter((x) => counts.has(x.hash)).sort((a, b) => most(b) - most(a));
  const current = shown[0] ?? older.find((x) => x.hash === told) ?? update;
  return { update, current, collisionCount };
}
/** The revision that the pod has, or is being changed to, or ''. */
const goalOf = (pod: Pod | undefined): string =>
  pod ? (inPlaceOf(pod)?.revision ?? pod.meta.labels[MARK.revision] ?? '') : '';
/** The bare hash that the member's pod carries, or ''. */
const revisionIn = ({ pod }: Judged): string => pod?.meta.labels[MARK.revision] ?? '';
/** Does the template that its pod was made of, or is being changed to, differ by hash? */
const isOutdated = (m: Judged, { hash }: Revision): boolean =>
  isLive(m) && isUp(m.pod) && goalOf(m.pod) !== hash;
/** Members that stay at their revision: a percentage rounds up. */
const partitionOf = (spec: Spec): number =>
  scaledValue(spec.updateStrategy.rollingUpdate.partition, spec.replicas, 'up');
/** Outdated live members that no partition keeps, oldest first. */
function outdatedOf(s: Snapshot, members: readonly Member[], r: Revisions): readonly Member[] {
  const { spec } = s.cluster;
  if (spec.updateStrategy.type === 'OnDelete' || spec.suspend) return [];
  return members
    .filter(isLive)
    .slice(partitionOf(spec))
    .filter((m) => isOutdated(m, r.update));
}
/** Members that an update has yet to reach. One that runs on a claim that is being deleted is left
 *  alone: without its pod, the claim would be gone. */
const behindOf = (s: Snapshot, members: readonly Member[], r: Revisions): number =>
  outdatedOf(s, members, r).filter((m) => !runsOnGoingClaim(m)).length;
const runsOnGoingClaim = (m: Member): boolean => isReady(m) && m.claims.some(isTerminating);

/** The revision of the next pod of a member, or, without one, of the next birth: the current one for
 *  the oldest `partition` members, while updates are paused, and while the API server refuses the
 *  update revision; else that. */
function nextRevision(d: Draft, members: readonly Judged[], { current, update }: Revisions) {
  const { spec } = d.s.cluster;
  const refused = waiting(d.s.desk.backoff, `trials/${update.hash}`, d.s.uptime)?.message;
  const stays = spec.updateStrategy.rollingUpdate.paused || refused;
  const kept = stays ? Infinity : partitionOf(spec);
  const order = members.filter(isLive).map(nameOf);
  const names = claimTemplateNames(spec);
  const gone = current.claimTemplates.find((name) => !names.includes(name));
  let born = order.length;
  return (m?: Member): Revision => {
    const rank = m ? order.indexOf(m.identity) : born++;
    if (current.hash === update.hash || rank >= kept) return update;
    if (m || gone === undefined) return current;
    const why = `the claim template ${gone} of revision ${current.hash} is gone`;
    d.notes.push(`new members get revision ${update.hash}: ${why}`);
    return update;
  };
}

/** The history of templates: the update revision is made before a pod names it, orphans are adopted,
 *  and the oldest that no pod uses go beyond the limit. True when the update revision is there. */
function planHistory(
  d: Draft,
  members: readonly Member[],
  { update, current }: Revisions,
): boolean {
  const { s } = d;
  const { meta, spec } = s.cluster;
  const about = { kind: REVISIONS, identity: '' } as const;
  const all = [...s.revisions.values()];
  const orphans = all.filter(
    (x) => !hasController(x.meta) && x.meta.labels[MARK.cluster] === meta.name,
  );
  if (orphans.length > 0) {
    if (!isRead(d, '', clusterRef(s))) return false;
    for (const object of orphans) {
      const ownerReferences = [...object.meta.owners, ownerOf(s.cluster)];
      const change = { metadata: { ownerReferences } };
      d.actions.push({ do: 'Patch', verb: 'record', object, change, because: 'Adopted', ...about });
    }
    return false;
  }
  if (update.meta.uid === '') {
    if (isRead(d, '', refOf(REVISIONS, update.meta.name))) {
      const body = revisionBody(s.cluster, update);
      d.actions.push({ do: 'Record', verb: 'record', body, because: 'Revised', identity: '' });
    }
    return false;
  }
  const ours = all.filter((x) => isControlledBy(x.meta, meta.uid));
  const newest = Math.max(...ours.map((x) => x.number));
  // An undo: an old template is the newest again. The cause may be annotated afterwards.
  const isOld = update.number < newest;
  const cause = meta.annotations[MARK.changeCause];
  const isTold = cause === undefined || update.meta.annotations[MARK.changeCause] === cause;
  if (isOld || !isTold) {
    const annotations = isTold ? {} : { [MARK.changeCause]: cause };
    const change = { metadata: { annotations }, revision: isOld ? newest + 1 : update.number };
    d.actions.push({
      do: 'Patch',
      verb: 'record',
      object: update,
      change,
      because: 'Revised',
      ...about,
    });
  }
  const named = members.flatMap((m) => [revisionIn(m), goalOf(m.pod)]);
  const used = new Set([update.hash, current.hash, ...named]);
  const spare = ours.filter((x) => !used.has(x.hash)).sort((a, b) => a.number - b.number);
  for (const object of spare.slice(0, Math.max(0, spare.length - spec.revisionHistoryLimit)))
    d.actions.push({ do: 'Delete', verb: 'forget', object, because: 'Revised', ...about });
  return true;
}

// ─── Updates ─────────────────────────────────────────────────────────────────────────────────────

/** Rounded down as Deployment does, and at least 1 without surge: nothing could ever be updated or
 *  given up else. */
export function maxUnavailableOf(spec: Spec): number {
  const { maxUnavailable } = spec.updateStrategy.rollingUpdate;
  const least = maxSurgeOf(spec) > 0 ? 0 : 1;
  return Math.max(least, scaledValue(maxUnavailable, spec.replicas, 'down'));
}
/** Rounded up as Deployment does; only Replace makes new members beside the old ones. */
export function maxSurgeOf(spec: Spec): number {
  const { type, rollingUpdate: r } = spec.updateStrategy;
  if (type === 'OnDelete' || r.podUpdatePolicy !== 'Replace' || r.paused) return 0;
  return scaledValue(r.maxSurge, spec.replicas, 'up');
}

/** Brings outdated members to the update revision. Those that only lack labels are patched all at
 *  once, for it takes nobody down; the others are chosen within the budget, after a trial. */
function planUpdates(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
  r: Revisions,
): void {
  const { spec } = d.s.cluster;
  const { rollingUpdate, type } = spec.updateStrategy;
  const zero = scaledValue(rollingUpdate.maxUnavailable, spec.replicas, 'down') === 0;
  if (zero && maxUnavailableOf(spec) === 1)
    d.notes.push('maxUnavailable comes to 0 without surge, so 1 is used');
  if (spec.suspend || d.actions.some((a) => a.because === 'ScaledIn')) return;
  const outdated = outdatedOf(d.s, members, r);
  const all = type === 'OnDelete' ? members.filter((m) => isOutdated(m, r.update)) : outdated;
  const labels = planLabels(
    d,
    all.filter((m) => !ending.has(m.identity)),
    r,
    type === 'OnDelete',
  );
  if (type === 'OnDelete' || rollingUpdate.paused) return;
  const bound = outdated.filter(runsOnGoingClaim).map(nameOf);
  if (bound.length > 0)
    d.notes.push(`not updated, for its claim is being deleted: ${fewNames(bound)}`);
  const open = outdated.filter((m) => !labels.has(m) && isUpdatable(d, m, ending));
  const chosen = chooseOutdated(
    d,
    members,
    ending,
    [...open, ...members.filter((m) => isStuck(d, m))],
    r,
  );
  const [first] = chosen;
  if (!first || !isReliedOn(d, members, chosen) || !passesTrial(d, first, r)) return;
  for (const m of chosen) updateMember(d, m, r);
}
/** May an update touch it? Not one whose node speaks against it, nor one that ends; one that is
 *  withheld for what its pod says may be healed by a new template. */
function isUpdatable(d: Draft, m: Member, ending: ReadonlyMap<string, EndReason>): boolean {
  if (ending.has(m.identity) || runsOnGoingClaim(m)) return false;
  if (['silent', 'gone', 'outOfService'].includes(m.node)) return false;
  return m.end?.dueInMs !== 0 || ['Unready', 'StartupTimeout', 'CrashLoop'].includes(m.end.reason);
}
/** Its node can never give it what it was resized to; the user said how else to update it. */
const isStuck = (d: Draft, { pod, life }: Member): boolean =>
  life === 'live' &&
  (pod?.resize.startsWith('Infeasible') ?? false) &&
  !d.s.cluster.spec.updateStrategy.rollingUpdate.podUpdatePolicy.startsWith('InPlace');

/** Who is updated now. Those that are not Ready cost nothing, so a broken update heals; of the Ready
 *  ones the youngest, while enough others are Available (I5). Under Replace even those that are not
 *  Ready cost an identity: no more than maxUnavailable + maxSurge are under way at once. */
function chooseOutdated(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
  open: readonly Member[],
  { update }: Revisions,
): readonly Member[] {
  const { spec } = d.s.cluster;
  const { podUpdatePolicy, maxSurge: _ } = spec.updateStrategy.rollingUpdate;
  const live = members.filter((m) => isLive(m) && !ending.has(m.identity));
  const births = d.actions.filter((a) => a.do === 'Make').length;
  const fresh = live.filter((m) => !isOutdated(m, update) && m.state !== 'Available').length;
  const most = Math.max(1, maxUnavailableOf(spec) + maxSurgeOf(spec));
  const room = podUpdatePolicy === 'Replace' ? most - fresh - births : Infinity;
  const isOrdered = spec.podManagementPolicy === 'OrderedReady';
  const isBusy = (m: Member): boolean =>
    !open.includes(m) &&
    (isComingUp(m, d.now) || isLeaving(m, d.now) || ['Returning', 'Updating'].includes(m.state));
  if (isOrdered && (births > 0 || members.some(isBusy))) return [];
  const byChoice = [...open].reverse();
  const well = byChoice.filter(isReady).slice(0, spareOf(d, members, ending));
  const chosen = [...byChoice.filter((m) => !isReady(m)), ...well];
  return chosen.slice(0, Math.max(0, Math.min(room, isOrdered ? 1 : Infinity)));
}

/** One member, as its policy says. What cannot be done in place falls back, or is reported. */
function updateMember(d: Draft, m: Member, r: Revisions): void {
  const { s } = d;
  const { pod, identity } = m;
  const policy = s.cluster.spec.updateStrategy.rollingUpdate.podUpdatePolicy;
  if (!pod || !isRead(d, identity, podRef(s, m))) return;
  const changes = changesFor(s, pod, r);
  if (changes.length === 0 && !isStuck(d, m)) return void d.actions.push(inPlace(d, m, pod, [], r));
  const refused = waiting(s.desk.backoff, `update/${pod.meta.name}`, s.uptime)?.message ?? '';
  const others = changes.filter((c) => !isInPlace(c, r.update, policy));
  if (policy.startsWith('InPlace') && others.length === 0 && refused === '') {
    d.actions.push(inPlace(d, m, pod, changes, r));
  } else if (policy === 'InPlaceOnly') {
    const where = fewNames(others.map((c) => c.path.join('.')));
    d.blocked = refused || `podUpdatePolicy is InPlaceOnly, and ${where} cannot change in place`;
  } else if (policy === 'Replace') {
    if (isRead(d, '', clusterRef(s))) planEnd(d, m, 'Updated');
  } else if (canComeBack(d, m)) {
    if (isRead(d, '', clusterRef(s))) leaveAndReturn(d, m, 'Recreated');
  } else d.blocked ||= `${identity} could not come back: its node, volumes or claims are not open`;
}
/** Recreate touches only a member that can come back. */
function canComeBack(d: Draft, m: Member): boolean {
  if (m.claims.some(isTerminating) || !readsVolumes(d, m)) return false;
  if (!m.pod?.ready && m.node !== 'open' && m.node !== 'none') return false;
  const allowed = nodesAllowed(d, m);
  if (!allowed) return m.claims.length === 0 || hasOpenNode(d.s);
  return allowed.some((node) => nodeWord(d.s, node.meta.name) === 'open');
}

/** Would the API server take what this step makes? It is asked under the name of a living member,
 *  for AlreadyExists comes last, and again while it objects. A full quota of pods is no objection
 *  where the member that goes leaves as much room as the next needs. */
function passesTrial(d: Draft, { identity, pod }: Member, { update }: Revisions): boolean {
  const { s } = d;
  const { desk, uptime, cluster } = s;
  const policy = cluster.spec.updateStrategy.rollingUpdate.podUpdatePolicy;
  const trial = trialOf(s, update.hash, identity, update, policy === 'Replace');
  const known = waiting(desk.backoff, keyOfRef(trial), uptime);
  if (!known) isRead(d, '', trial);
  const words = known?.message ?? s.answers.get(keyOfRef(trial)) ?? 'asked';
  const made = revisionBy(s, pod?.meta.labels[MARK.revision] ?? '');
  const changes = changesOf(made?.template.spec, update.template.spec);
  const sameSize = !changes.some((c) => c.path.includes('resources'));
  if (words === '' || (sameSize && policy !== 'Replace' && isQuotaOfPods(words, pod))) return true;
  if (words.startsWith('no answer')) d.notes.push(`the trial of ${update.hash} failed: ${words}`);
  else if (words !== 'asked') d.blocked = words;
  return false;
}

/** Those of which only labels differ, or nothing, are patched at once. */
function planLabels(
  d: Draft,
  open: readonly Member[],
  r: Revisions,
  onlySame: boolean,
): ReadonlySet<Member> {
  const { s } = d;
  const found = new Map<string, readonly Change[] | undefined>();
  const changesOfRevision = (hash: string): readonly Change[] | undefined => {
    const base = revisionBy(s, hash);
    const changes = base && changesBetween(s, base, r.update);
    const isLabel = (c: Change): boolean => c.path[1] === 'labels' && isInPlace(c, r.update, '');
    return changes?.every((c) => isLabel(c) && !onlySame) ? changes : undefined;
  };
  const labelled = open.filter((m) => {
    const hash = revisionIn(m);
    if (!m.pod || inPlaceOf(m.pod)) return false;
    if (!found.has(hash)) found.set(hash, changesOfRevision(hash));
    const changes = found.get(hash);
    if (changes) d.actions.push(inPlace(d, m, m.pod, changes, r));
    return changes !== undefined;
  });
  return new Set(labelled);
}

// ─── What changes, and how ───────────────────────────────────────────────────────────────────────

/** A template's place at which two revisions differ, and its new value; undefined: removed. */
interface Change {
  readonly path: readonly string[];
  readonly value: unknown;
}
const revisionBy = (s: Snapshot, hash: string): Revision | undefined =>
  [...s.revisions.values()].find((r) => r.hash === hash);
/** Where the pods of two revisions differ; of an unknown one, everything may. What one template says
 *  and the other leaves to the API server's default is no difference. */
function changesBetween(s: Snapshot, base: Revision | undefined, to: Revision): readonly Change[] {
  const whole = (r: Revision | undefined): Json => ({
    metadata: {
      labels: r && templateLabels(s.cluster, r.template),
      annotations: withoutOurs(r?.template.metadata?.annotations),
    },
    spec: r?.template.spec,
  });
  const before = whole(base);
  return changesOf(before, whole(to)).filter(
    ({ path, value }) => !isMet(at(before, path), value, path),
  );
}
const at = (whole: unknown, path: readonly string[]): unknown =>
  path.reduce<unknown>((part, key) => fieldsOf(part)?.[key], whole);
/** What the living pod lacks of the update revision: where that differs from the revision it was
 *  made of, and from the one it is just being changed to. */
function changesFor(s: Snapshot, pod: Pod, { update }: Revisions): readonly Change[] {
  const body = s.bodies.get(pod.meta.name);
  const hashes = unique([pod.meta.labels[MARK.revision] ?? '', goalOf(pod)]);
  const found = hashes.flatMap((hash) => changesBetween(s, revisionBy(s, hash), update));
  return [...new Map(found.map((c) => [c.path.join('/'), c])).values()].filter(
    ({ path, value }) => !isMet(at(body, path), value, path),
  );
}

/** Where two templates differ: the deepest paths, but a list's item that comes or goes is whole,
 *  and so is a list in another order, or of things without names. */
export function changesOf(before: unknown, after: unknown, path: readonly string[] = []): Change[] {
  if (canonicalJson(before) === canonicalJson(after)) return [];
  const [a, b] = [fieldsOf(before ?? {}), fieldsOf(after ?? {})];
  const isList = Array.isArray(before ?? after);
  const keys = a && b ? unique([...Object.keys(a), ...Object.keys(b)]) : [];
  const order = (x: Json, y: Json): string =>
    Object.keys(x)
      .filter((key) => key in y)
      .join();
  const isMoved = isList && a && b && order(a, b) !== order(b, a);
  if (!a || !b || isMoved || keys.length === 0) return [{ path, value: after }];
  const isItem = (key: string): boolean => isList && !(key in a && key in b);
  return keys.flatMap((key) =>
    isItem(key)
      ? [{ path: [...path, key], value: b[key] }]
      : changesOf(a[key], b[key], [...path, key]),
  );
}
/** Lists of uniquely named things are compared by name, as a strategic merge does. */
function fieldsOf(value: unknown): Json | undefined {
  if (!Array.isArray(value))
    return typeof value === 'object' && value ? (value as Json) : undefined;
  const names = value.map((item) => String((item as Json)?.['name'] ?? ''));
  if (names.includes('') || new Set(names).size < names.length) return undefined;
  return Object.fromEntries(value.map((item, i) => [names[i], item]));
}

/** Has the living pod this value already? It may have the API server's defaults besides. */
function isMet(living: unknown, wanted: unknown, path: readonly string[]): boolean {
  const usual = path[0] === 'spec' ? defaultAt(path) : undefined;
  if (wanted === undefined || wanted === null || living === undefined) {
    return canonicalJson(living ?? usual) === canonicalJson(wanted ?? usual);
  }
  if (Array.isArray(wanted)) {
    const items = Array.isArray(living) && living.length === wanted.length ? living : undefined;
    return items !== undefined && wanted.every((w, i) => isMet(items[i], w, path));
  }
  if (typeof wanted === 'object') {
    const [has, wants] = [dictOf(living) as Json, wanted as Json];
    const keys = unique([...Object.keys(has), ...Object.keys(wants)]);
    return keys.every((key) => isMet(has[key], wants[key], [...path, key]));
  }
  if (living === wanted) return true;
  return path.includes('resources') && quantity(String(living)) === quantity(String(wanted));
}
/** What the API server fills in where a template says nothing: for the pod, and further in. */
const POD_DEFAULTS: Json = {
  restartPolicy: 'Always',
  dnsPolicy: 'ClusterFirst',
  schedulerName: 'default-scheduler',
  terminationGracePeriodSeconds: 30,
  serviceAccountName: 'default',
  securityContext: {},
  enableServiceLinks: true,
  hostNetwork: false,
};
const INNER_DEFAULTS: Json = {
  imagePullPolicy: 'IfNotPresent',
  protocol: 'TCP',
  terminationMessagePolicy: 'File',
  terminationMessagePath: '/dev/termination-log',
  scheme: 'HTTP',
  defaultMode: 420,
  timeoutSeconds: 1,
  periodSeconds: 10,
  successThreshold: 1,
  failureThreshold: 3,
  readOnly: false,
  stdin: false,
  tty: false,
  securityContext: {},
  apiVersion: 'v1',
};
const defaultAt = (path: readonly string[]): unknown =>
  (path.length === 2 ? POD_DEFAULTS : INNER_DEFAULTS)[path.at(-1) ?? ''];

/** Can this be changed on a living pod, without losing what its containers read at their start? A
 *  changed annotation restarts (`restartedAt`, `checksum/config`), except under InPlaceOnly. */
function isInPlace({ path, value }: Change, { template }: Revision, policy: string): boolean {
  const [part, field, , inner, kind = '', what = ''] = path;
  if (part === 'metadata') {
    const read = JSON.stringify(template.spec ?? {});
    const isRead =
      read.includes(`metadata.labels['${path[2]}']`) || read.includes('"metadata.labels"');
    return field === 'labels' ? !isRead : policy === 'InPlaceOnly';
  }
  if (field !== 'containers' || value === undefined) return false;
  if (path.length === 4) return inner === 'image';
  const isResource = ['requests', 'limits'].includes(kind) && ['cpu', 'memory'].includes(what);
  return inner === 'resources' && path.length === 6 && isResource;
}

/** The change in place; `enge.me/in-place` says what each container that must restart was before.
 *  Where only labels differ, the revision is written at once. */
function inPlace(d: Draft, m: Member, pod: Pod, changes: readonly Change[], r: Revisions): Action {
  const metadata = (field: string): Json =>
    Object.fromEntries(
      changes.filter((c) => c.path[1] === field).map((c) => [c.path[2], c.value ?? null]),
    );
  const [labels, annotations] = [metadata('labels'), metadata('annotations')];
  const images = changes.filter((c) => c.path[3] === 'image');
  const sizes = changes.filter((c) => c.path[3] === 'resources');
  // A resize may have landed, and the patch that says so not.
  const isAtRest = inPlaceOf(pod) ? isApplied(pod) : pod.isObserved && pod.resize === '';
  const about = { kind: PODS, object: pod, identity: m.identity } as const;
  if (images.length + sizes.length === 0 && isAtRest) {
    const marked = { labels: { ...labels, [MARK.revision]: r.update.hash }, annotations };
    const change = {
      metadata: { ...marked, annotations: { ...annotations, [MARK.inPlace]: null } },
    };
    const because = changes.length > 0 ? 'Updated' : 'Revised';
    return { do: 'Patch', verb: 'relabel', change, because, ...about };
  }
  const before = beforeOf(d, pod, images);
  const mark = JSON.stringify({ revision: r.update.hash, before });
  const containers = images.map((c) => ({ name: c.path[2], image: c.value }));
  const change = {
    metadata: { labels, annotations: { ...annotations, [MARK.inPlace]: mark } },
    ...(containers.length > 0 && { spec: { containers } }),
  };
  const resize = sizes.length > 0 ? { spec: { containers: resizedBy(sizes) } } : undefined;
  return {
    do: 'Update',
    verb: 'update',
    revision: r.update.hash,
    change,
    resize,
    because: 'Updated',
    ...about,
  };
}
/** ID and image of each container that is to restart: as they are, or, of one that has yet to
 *  restart for an earlier update, as they were before that. */
function beforeOf(d: Draft, pod: Pod, images: readonly Change[]): Json {
  const body = d.s.bodies.get(pod.meta.name);
  const now = (name: string): readonly [string, string] => {
    const status = at(body, ['status', 'containerStatuses', name, 'containerID']);
    return [String(status ?? ''), String(at(body, ['spec', 'containers', name, 'image']) ?? '')];
  };
  const waits = Object.entries(inPlaceOf(pod)?.before ?? {}).filter(
    ([name, [id]]) => now(name)[0] === id,
  );
  const fresh = images.map((c) => [c.path[2] ?? '', now(c.path[2] ?? '')] as const);
  return Object.fromEntries([...fresh, ...waits]);
}
/** The `resources` of each container that is resized. */
function resizedBy(sizes: readonly Change[]): readonly Json[] {
  return unique(sizes.map((c) => c.path[2])).map((name) => {
    const of = (kind: string): Json =>
      Object.fromEntries(
        sizes
          .filter((c) => c.path[2] === name && c.path[4] === kind)
          .map((c) => [c.path[5], c.value]),
      );
    return { name, resources: { requests: of('requests'), limits: of('limits') } };
  });
}

// ─── Upkeep ──────────────────────────────────────────────────────────────────────────────────────

/** Keeps in step what is there: labels, owners, seals, growth, and what an update left to do; frees
 *  the claims of identities that are over. */
function planUpkeep(
  d: Draft,
  members: readonly Member[],
  ending: ReadonlyMap<string, EndReason>,
): void {
  planRelabelling(d);
  for (const m of members) {
    if (m.life === 'over') planFreeing(d, m);
    if (!isLive(m) || ending.has(m.identity)) continue;
    for (const claim of m.claims) if (!isTerminating(claim)) planClaim(d, m, claim);
    planSeal(d, m);
    if (m.pod && !isTerminating(m.pod)) planFinish(d, m, m.pod);
  }
}
/** I3: only of an identity that is over, once its pod object is gone (read live), if it was marked
 *  with policy Delete, or was never bound, so that nothing was written to it. */
function planFreeing(d: Draft, m: Member): void {
  const because = m.retired?.reason ?? 'Released';
  const isFree = (c: Claim): boolean =>
    isMarked(c) && (c.meta.annotations[MARK.retiredPolicy] === 'Delete' || isNeverBound(c));
  const free = [...m.claims, ...m.leftovers].filter((c) => isFree(c) && !isTerminating(c));
  if (free.length === 0 || m.pod || isWantedBack(m)) return;
  if (
    !isRead(d, m.identity, podRef(d.s, m)) ||
    d.s.pods.has(podName(d.s.cluster.meta.name, m.identity))
  )
    return;
  for (const object of free)
    d.actions.push({
      do: 'Delete',
      verb: 'free',
      kind: CLAIMS,
      object,
      because,
      identity: m.identity,
    });
}
/** Labels of ours that a pod or a claim lost are put back. */
function planRelabelling(d: Draft): void {
  const { s } = d;
  const { name, uid } = s.cluster.meta;
  const because = 'Relabelled';
  const lacks = (meta: Meta, identity: string): boolean =>
    Object.entries(ourLabels(name, identity)).some(([key, value]) => meta.labels[key] !== value);
  for (const pod of s.pods.values()) {
    const identity = identityOf(pod, name);
    if (!isControlledBy(pod.meta, uid)) continue;
    const change = { metadata: { labels: ourLabels(name, identity) } };
    if (lacks(pod.meta, identity) && !isTakenOut(s, pod))
      d.actions.push({
        do: 'Patch',
        verb: 'relabel',
        kind: PODS,
        object: pod,
        change,
        because,
        identity,
      });
    for (const object of pod.claims.map((claim) => s.claims.get(claim))) {
      const isOurs =
        object && MARK.claims in object.meta.annotations && !hasController(object.meta);
      if (
        isOurs &&
        object.meta.name.endsWith(`-${name}-${identity}`) &&
        lacks(object.meta, identity)
      )
        d.actions.push({
          do: 'Patch',
          verb: 'seal',
          kind: CLAIMS,
          object,
          change,
          because,
          identity,
        });
    }
  }
}
/** The owner reference is `whenDeleted: Delete`; a larger request grows what is bound. */
function planClaim(d: Draft, { identity }: Member, object: Claim): void {
  const { cluster } = d.s;
  const about = { do: 'Patch', kind: CLAIMS, object, identity } as const;
  const wantsOwner = cluster.spec.persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete';
  if (isControlledBy(object.meta, cluster.meta.uid) !== wantsOwner) {
    const others = othersOf(object, cluster.meta);
    const ownerReferences = wantsOwner ? [...others, ownerOf(cluster)] : others;
    d.actions.push({
      ...about,
      verb: 'own',
      change: { metadata: { ownerReferences } },
      because: 'Owned',
    });
  }
  const storage = claimGrowth(cluster, identity, object);
  const change = { spec: { resources: { requests: { storage } } } };
  if (storage) d.actions.push({ ...about, verb: 'expand', change, because: 'Expanded' });
}
/** The seal: of an identity of two or more claims, once its pod has been scheduled, the names of all
 *  of them on each, so that one that is lost later is missed. */
function planSeal(d: Draft, { identity, claims, pod }: Member): void {
  const names = claims.map((c) => c.meta.name).sort();
  const isSealed = claims.some((c) => sealOf(c).length > 0);
  if (!pod || pod.node === '' || isTerminating(pod) || (names.length < 2 && !isSealed)) return;
  if (pod.claims.some((name) => name.endsWith(`-${identity}`) && !names.includes(name))) return;
  const change = { metadata: { annotations: { [MARK.claims]: names.join(' ') } } };
  for (const object of claims)
    if (sealOf(object).join() !== names.join())
      d.actions.push({
        do: 'Patch',
        verb: 'seal',
        kind: CLAIMS,
        object,
        change,
        because: 'Sealed',
        identity,
      });
}
/** What an update leaves to do: the revision label is written last, once the pod is as it should be
 *  in place; the mark of a deletion that was not done after all is taken off. */
function planFinish(d: Draft, { identity }: Member, pod: Pod): void {
  const inPlace = inPlaceOf(pod);
  const isTouched = d.actions.some(
    (a) => 'object' in a && a.object === pod && a.verb !== 'relabel',
  );
  const about = {
    do: 'Patch',
    verb: 'relabel',
    kind: PODS,
    object: pod,
    because: 'Revised',
    identity,
  } as const;
  if (inPlace && pod.resize.startsWith('Infeasible')) {
    d.blocked ||= `${identity} cannot be resized on its node (${pod.resize})`;
  }
  if (isTouched) return;
  const labels = { [MARK.revision]: inPlace?.revision };
  const change = { metadata: { labels, annotations: { [MARK.inPlace]: null } } };
  if (inPlace && isApplied(pod)) d.actions.push({ ...about, change });
  const unmarked = { metadata: { annotations: { [MARK.returns]: null } } };
  if (MARK.returns in pod.meta.annotations && isUp(pod))
    d.actions.push({ ...about, change: unmarked });
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
    'dataSourceRef',
    'volumeAttributesClassName',
  ] as const;
  return (
    fixed.find((f) => spec[f] && canonicalJson(spec[f]) !== canonicalJson(claim.spec[f])) ?? ''
  );
}

/** What this process keeps in mind after a pass over `s`; `desk` is what it has learned meanwhile.
 *  Evidence that is gone is forgotten, so that it counts anew when it returns. */
export function remember(s: Snapshot, p: Plan, desk: Desk): Desk {
  const { uptime } = s;
  const live = new Set(p.members.filter(isLive).map(nameOf));
  const isRecent = (uptimeMs: number): boolean => uptime - uptimeMs < LIMITS.earlyEndMs;
  const went = new Map(desk.went);
  for (const { identity, pod, life, claims, retired } of p.members) {
    const known = went.get(identity);
    if (life === 'live') {
      // Not what this very pass has done: `s` is older than that.
      const isOld = known === s.desk.went.get(identity);
      if (pod && isOld && !isTerminating(pod)) went.delete(identity);
    } else if (retired && !known?.reason && claims.length === 0) {
      went.set(identity, { pod, reason: retired.reason, atMs: retired.atMs });
    }
  }
  const newest = Math.max(0, ...[...went.values()].map((one) => one.atMs));
  for (const [identity, { atMs }] of went) {
    if (!live.has(identity) && newest - atMs > LIMITS.earlyEndMs) went.delete(identity);
  }
  const backoff = new Map(desk.backoff);
  const { hash } = p.revisions.update;
  const passed = { times: 0, untilUptime: Infinity, message: '' };
  for (const [key, words] of s.answers) {
    if (key !== `trials/${hash}`) continue;
    backoff.set(
      key,
      words === '' ? passed : { ...passed, untilUptime: uptime + LIMITS.trialMs, message: words },
    );
  }
  for (const [key, { untilUptime }] of backoff) {
    const isOther = key.startsWith('trials/') && key !== `trials/${hash}`;
    const isOldMake = key.startsWith('make/') && key !== makeKey(s.cluster);
    if (isOther || isOldMake || !isRecent(untilUptime)) backoff.delete(key);
  }
  return {
    seen: new Map(p.evidence.map((key) => [key, desk.seen.get(key) ?? uptime])),
    went,
    vanished: new Set(
      [...desk.vanished].filter((key) => s.answers.get(key) !== '' || !s.desk.vanished.has(key)),
    ),
    calm: p.calm,
    backoff,
  };
}
/** Restarts of each pod when it last stayed Available for a minute. */
function calmOf(d: Draft, members: readonly Member[]): ReadonlyMap<string, number> {
  const pods = members.flatMap(({ pod, state }) => (pod ? [{ pod, state }] : []));
  return new Map(
    pods.map(({ pod, state }) => {
      const sinceMs = d.now - (pod.readySinceMs ?? d.now);
      const isCalm = state === 'Available' && sinceMs >= LIMITS.calmMs;
      return [pod.meta.uid, isCalm ? pod.restarts : calmRestarts(d, pod)];
    }),
  );
}

// ═══ 6 STATUS · pure ═════════════════════════════════════════════════════════════════════════════
// What people and tools are told: status and conditions, recomputed whole every time, and the
// Events of a pass. Nothing is merged by hand, so no condition stays True after recovery. Only
// counters and lineage that no object carries any more are taken over from the status before.

function memberStatus(s: Snapshot, r: Revisions, m: Member): MemberStatus {
  const { pod, identity, retired, state, end, claims, index } = m;
  const trouble = state === 'Available' ? '' : pod?.trouble || pod?.resize || '';
  const usual = state === 'Returning' && m.isBlocked ? m.isBlocked : trouble;
  const readyMs = pod?.readySinceMs ?? pod?.meta.createdMs;
  const sinceMs = end?.dueInMs === 0 ? (end.sinceMs ?? readyMs) : (retired?.atMs ?? readyMs);
  return {
    identity,
    pod: pod?.meta.name ?? '',
    node: lastNodeOf(s, m),
    ...(index !== undefined && s.cluster.spec.ordinals && { index }),
    revision: revisionIn(m) || goalOf(pod) || (isLive(m) && !pod ? r.update.hash : ''),
    health: state,
    reason: end?.dueInMs === 0 ? end.reason : (retired?.reason ?? usual),
    ...(sinceMs !== undefined && { since: timeText(sinceMs) }),
    claims: claims.map((c) => c.meta.name).sort(),
  };
}

/** Who replaces whom: identity → its successor, as pods and claims record it, and what was made. */
function successors(s: Snapshot, done: readonly Action[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const note = (old: string, heir: string): void => {
    const known = found.get(old);
    // Two processes that overlapped may both have made one: the older counts, for either of them.
    if (old && (known === undefined || byAge(heir, known) < 0)) found.set(old, heir);
  };
  for (const { meta } of [...s.pods.values(), ...s.claims.values()])
    note(predecessorOf(meta)?.identity ?? '', meta.labels[MARK.identity] ?? '');
  for (const a of done)
    if (a.do === 'Make' && a.replaces) note(a.replaces.split(' ')[0] ?? '', a.identity);
  return found;
}
/** The last retired identities, newest first, each with its successor and the last words of its pod.
 *  The marks on the claims say so; of others, what this process did, and the status before. */
function retiredStatus(
  s: Snapshot,
  p: Plan,
  done: readonly Action[],
  now: number,
): readonly RetiredStatus[] {
  const before = s.cluster.status.retired ?? [];
  const successor = successors(s, done);
  const found = new Map(before.map((r) => [r.identity, { ...r, claims: [] as string[] }]));
  const put = (identity: string, end: Retired, pod?: Pod, claims: readonly Claim[] = []): void => {
    const earlier = before.find((r) => r.identity === identity && r.reason === end.reason);
    const message = pod?.lastWords || earlier?.message;
    const at = earlier?.at ?? timeText(end.atMs);
    const names = claims.map((c) => c.meta.name).sort();
    const base = { identity, reason: end.reason, at, claims: names, replacedBy: '' };
    found.set(identity, { ...base, ...(message && { message }) });
  };
  for (const [identity, { reason, atMs, pod }] of s.desk.went)
    if (reason) put(identity, { reason, atMs }, pod);
  const ended = new Map(done.flatMap((a) => (isEnd(a) ? [[a.identity, a.because] as const] : [])));
  const back = new Set(done.flatMap((a) => (a.verb === 'restore' ? [a.identity] : [])));
  for (const { identity, pod, claims, leftovers, life, retired } of p.members) {
    const reason = ended.get(identity) as EndReason | undefined;
    const end = reason ? { reason, atMs: now } : life === 'live' ? undefined : retired;
    if (back.has(identity) || !end) found.delete(identity);
    else put(identity, end, pod ?? s.desk.went.get(identity)?.pod, [...claims, ...leftovers]);
  }
  return [...found.values()]
    .map((r) => {
      const told = before.find((b) => b.identity === r.identity)?.replacedBy;
      return { ...r, replacedBy: successor.get(r.identity) ?? told ?? '' };
    })
    .sort((a, b) => (a.at === b.at ? byAge(b.identity, a.identity) : a.at < b.at ? 1 : -1))
    .slice(0, LIMITS.statusRetiredMax);
}
/** Does the action end an identity? A suspended member that has claims comes back. */
const isEnd = (a: Action): boolean =>
  ['retire', 'end', 'release'].includes(a.verb) &&
  a.because in ENDS &&
  !(a.because === 'Suspended' && (a as { object: Pod }).object.claims.length > 0);

/** Replacements so far: identities younger than the newest that the status before knew. */
function countReplacements(s: Snapshot, done: readonly Action[]): number {
  const { replacements = 0, newestIdentity = '' } = s.cluster.status;
  const heirs = new Set(successors(s, done).values());
  return replacements + [...heirs].filter((id) => byAge(id, newestIdentity) > 0).length;
}

/** What claims do not follow: the API server's own words where it refuses to expand one, else the
 *  fields that only new identities get. */
function driftOf(s: Snapshot, { members, revisions: { update } }: Plan): string {
  const { meta, spec } = s.cluster;
  const live = members.filter(isLive).flatMap((m) => {
    const { identity, pod, claims } = m;
    const wanted = claimTemplateNames(spec).map((t) => claimName(t, meta.name, identity));
    const isNext = pod && !isOutdated(m, update); // An update would bring what it lacks.
    const lacks = isNext ? wanted.filter((name) => !pod.claims.includes(name)) : [];
    const differs = claims.map((c) => [c.meta.name, claimDrift(s.cluster, identity, c)] as const);
    return [...differs, ...lacks.map((name) => [name, 'absent'] as const)];
  });
  const refused = live.flatMap(([name]) => {
    const words = s.desk.backoff.get(`expand/${name}`)?.message;
    return words ? [`${name}: ${words}`] : [];
  });
  if (refused.length > 0) return `the API server refuses to expand ${fewNames(refused)}`;
  const drifted = live.flatMap(([name, field]) => (field ? [`${name} (${field})`] : []));
  if (drifted.length === 0) return '';
  const now = 'spec.volumeClaimTemplates now holds for new identities only';
  return `${now}; these claims differ: ${fewNames(drifted)}`;
}

/** How far an update is. */
function updateMessage({ spec }: StatefulCluster, p: Plan): readonly string[] {
  const outdated = p.members.filter((m) => isOutdated(m, p.revisions.update)).length;
  if (outdated === 0) return [];
  const { type, rollingUpdate } = spec.updateStrategy;
  const waits = type === 'OnDelete' ? ', as OnDelete says' : rollingUpdate.paused ? ', paused' : '';
  const kept = Math.min(outdated - p.behind, partitionOf(spec));
  const held = kept > 0 && !waits ? `, ${kept} of them kept by the partition` : '';
  return [`${outdated} members are not at revision ${p.revisions.update.hash}${held}${waits}`];
}
/** What holds the cluster up, or what a user of a settled one should know. */
function readyMessage(s: Snapshot, p: Plan, available: number): string {
  const live = p.members.filter(isLive);
  const names = live
    .filter((m) => m.state !== 'Available')
    .map((m) => {
      const { identity, health, reason } = memberStatus(s, p.revisions, m);
      return `${identity} ${health}${reason && ` (${reason})`}`;
    });
  const grows = live.flatMap((m) =>
    m.claims.filter((c) => isBound(c) && quantity(c.capacity) < quantity(c.request)),
  );
  const sizes = grows.map((c) => `${c.meta.name} from ${c.capacity} to ${c.request}`);
  const going = live.filter(runsOnGoingClaim).map(nameOf);
  const refused = [...s.desk.backoff].flatMap(([key, { message, times }]) =>
    times > 2 && message && !key.startsWith('make/') ? [`${key.split('/')[0]}: ${message}`] : [],
  );
  return [
    `${available} of ${s.cluster.spec.replicas} members are available`,
    ...(s.cluster.spec.suspend ? ['the cluster is suspended'] : []),
    ...updateMessage(s.cluster, p),
    ...(names.length > 0 ? [`waiting for ${fewNames(names)}`] : []),
    ...(sizes.length > 0 ? [`claims grow: ${fewNames(sizes)}`] : []),
    ...unique(p.notes),
    ...(p.waits !== '' ? [`creations wait: ${p.waits}`] : []),
    ...(refused.length > 0 ? [`refused: ${fewNames(refused)}`] : []),
    ...(going.length > 0 ? [`runs on a claim that is being deleted: ${fewNames(going)}`] : []),
    ...(s.nodes ? [] : ['nodes cannot be read, so every node counts as open']),
    ...(s.volumesReadable ? [] : ['volumes cannot be read, so they count as bound to their node']),
  ].join('; ');
}

/** Why the cluster is not done, in one word. */
function progressOf({ meta, spec }: StatefulCluster, p: Plan, stalled: boolean, available: number) {
  if (stalled) return 'Stalled';
  if (meta.annotations[MARK.paused] === 'true') return 'Paused';
  if (spec.suspend) return 'Suspended';
  const { paused } = spec.updateStrategy.rollingUpdate;
  if (p.behind === 0 || (paused && available < spec.replicas)) return 'MembersUnavailable';
  return paused ? 'UpdatePaused' : 'Updating';
}
function conditionsOf(s: Snapshot, p: Plan, available: number, now: number): readonly Condition[] {
  const { spec, meta } = s.cluster;
  const live = p.members.filter(isLive).length;
  const refused = s.desk.backoff.get(makeKey(s.cluster))?.message ?? '';
  const trouble = p.stalled || refused || p.blocked;
  const isWhole = live === spec.replicas && available === spec.replicas && p.behind === 0;
  const done = isWhole && trouble === '' && !spec.suspend;
  const drift = driftOf(s, p);
  const message = readyMessage(s, p, available);
  const state = done ? 'AllAvailable' : progressOf(s.cluster, p, trouble !== '', available);
  const progress = done ? 'Complete' : state;
  const paused = meta.annotations[MARK.paused] === 'true';
  const idle = paused || ['Stalled', 'Suspended', 'UpdatePaused'].includes(state);
  const why = p.stalled ? 'InvalidSpec' : refused ? 'Refused' : 'UpdateBlocked';
  // Where all may be unavailable, none is not enough.
  const least = Math.max(Math.min(1, spec.replicas), spec.replicas - maxUnavailableOf(spec));
  // Type, truth, the reason when True, the reason when False, message.
  const rows: readonly (readonly [string, boolean, string, string, string])[] = [
    ['Available', available >= least, 'MinimumAvailable', 'MinimumUnavailable', message],
    ['Progressing', !idle, progress, progress, message],
    ['Ready', done, state, state, message],
    ['Reconciling', !done && !idle, progress, progress, message],
    ['Stalled', trouble !== '', why, 'NotStalled', trouble],
    ['ReplacementWithheld', p.withheld !== '', 'BudgetSpent', 'NoneWithheld', p.withheld],
    ['ClaimTemplatesDrifted', drift !== '', 'Drifted', 'InStep', drift],
  ];
  return rows.map(([type, truth, yes, no, text]) => {
    const [status, reason] = truth ? (['True', yes] as const) : (['False', no] as const);
    const said = text.slice(0, LIMITS.messageMax); // A webhook may say more.
    const next = { type, status, reason, message: said, observedGeneration: meta.generation };
    return setCondition(s.cluster.status.conditions ?? [], next, now);
  });
}

/** The whole status, from the snapshot, the plan and what was done of it. Times in it come from
 *  objects, never from the clock of this pass, so an unchanged cluster gives an unchanged status. */
export function statusOf(s: Snapshot, p: Plan, done: readonly Action[], now: number): Status {
  const { spec, meta } = s.cluster;
  const ended = new Set(done.flatMap((a) => (isEnd(a) ? [a.identity] : [])));
  const all = p.members.map((m): Member =>
    ended.has(m.identity) ? { ...m, life: 'over', state: 'Retiring' } : m,
  );
  const live = all.filter(isLive);
  const { update, current, collisionCount } = p.revisions;
  const count = ({ hash }: Revision): number => live.filter((m) => revisionIn(m) === hash).length;
  const available = live.filter((m) => m.state === 'Available').length;
  const born = done.flatMap((a) => (a.do === 'Make' ? [a.identity] : []));
  const shown = all.filter((m) => isLive(m) || m.pod);
  const sick = (m: Member): number => (m.state === 'Available' ? 1 : 0);
  shown.sort((a, b) => sick(a) - sick(b) || byAge(a.identity, b.identity));
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
    replacements: countReplacements(s, done),
    retiredClaims: retired.filter((c) => !isTerminating(c)).length,
    newestIdentity: youngest([...identitiesOf(s), ...born]),
    members: shown.slice(0, LIMITS.statusMembersMax).map((m) => memberStatus(s, p.revisions, m)),
    retired: retiredStatus(s, p, done, now),
    conditions: conditionsOf(s, { ...p, members: all }, available, now),
  };
}

/** One Event of a pass. */
export interface Story {
  readonly reason: string;
  readonly type: 'Normal' | 'Warning';
  readonly message: string;
}
/** The name that an action is about. */
const subjectOf = (a: Action): string =>
  'object' in a ? a.object.meta.name : a.do === 'Record' ? a.body.metadata.name : a.identity;
/** One Event for each Reason of a pass, so that 300 creations are one line in `kubectl
 *  describe`. Bookkeeping is no news. */
export function storiesOf(done: readonly Action[]): readonly Story[] {
  const told = done.filter((a) => a.because !== 'Revised' && a.verb !== 'announce');
  return unique(told.map((a) => a.because)).map((reason): Story => {
    const same = told.filter((a) => a.because === reason);
    const pairs = same.flatMap((a) =>
      a.do === 'Make' && a.replaces
        ? [`replaced ${a.replaces.split(' ')[0]} by ${a.identity}`]
        : [],
    );
    const rest = same.filter((a) => !(a.do === 'Make' && a.replaces));
    const parts = unique(rest.map((a) => a.verb)).map((verb) => {
      const names = rest.filter((a) => a.verb === verb).map(subjectOf);
      const count = verb === 'make' && names.length > 1 ? `${names.length} members: ` : '';
      return `${VERBS[verb][1]} ${count}${fewNames(names)}`;
    });
    const words = same.map((a) => (a.verb === 'end' && 'object' in a ? lastWordsOf(a.object) : ''));
    const last = words.find(Boolean);
    const message = [
      ...(pairs.length > 0 ? [fewNames(pairs)] : []),
      ...parts,
      ...(last ? [last] : []),
    ];
    const isLoss = reason in ENDS && ENDS[reason as EndReason].heir && reason !== 'Updated';
    return { reason, type: isLoss ? 'Warning' : 'Normal', message: message.join('; ') };
  });
}
const lastWordsOf = (o: Pod | Claim | Revision): string => ('lastWords' in o ? o.lastWords : '');

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
/** There is no such object. A 404 that does not say so comes from a proxy, and is no answer. */
const isGone = (error: unknown): boolean =>
  error instanceof ApiError && error.code === 404 && error.reason === 'NotFound';
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

const CANCEL = 8; // Of HTTP/2: no longer wanted.
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
    const http2 = process.getBuiltinModule('node:http2'); // A third of the start of `version`.
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
    watches: 0,
    /** After a 401: tokens rotate. What got it may be gone by now, since a GOAWAY comes with it;
     *  a session that is left ends with its last stream. */
    renew(used: Promise<Credentials>): void {
      if (used !== credentials) return; // They are read again already.
      session?.close();
      [credentials, session] = [undefined, undefined];
    },
    /** Sends nothing after `late`: a plugin for credentials may hang, and is asked again. */
    async open(headers: http2.OutgoingHttpHeaders, late: AbortSignal, body?: string) {
      const used = (credentials ??= load().then(credentialsOf));
      const isLate = aborted(late).then(() => Promise.reject(late.reason));
      const given = await Promise.race([used, isLate]).catch((error: unknown) => {
        if (credentials === used) credentials = undefined;
        return Promise.reject(error);
      });
      if (!session || session.closed || session.destroyed) session = connect(given.tls);
      const all = { ...headers, ...lowerCased(given.headers) };
      // Said outright, since Node would end a DELETE before its body.
      const stream = session.request(all, { endStream: body === undefined });
      if (body !== undefined) stream.end(body);
      return { stream, used };
    },
  };
}
/** An API server grants a connection 100 streams; without a free one every request would wait. */
function newLinks(server: URL, load: () => Promise<KubeConfig>) {
  const link = newLink(server, load);
  const all = [link];
  function roomy(): typeof link {
    let found = all.find(({ watches }) => watches < LIMITS.watchesMax);
    if (!found) all.push((found = newLink(server, load)));
    return found;
  }
  return { link, roomy };
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

/** JSON as Go writes it: the API server compares the data of a ControllerRevision by its bytes. */
const written = (body: unknown): string =>
  JSON.stringify(body).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
/** `send` and `watch` of World over the kubeconfig's current context. Credentials come from
 *  `reload`, again after a 401, since the library keeps what it once read. */
export function connect(
  config: KubeConfig,
  reload: () => Promise<KubeConfig>,
): Pick<World, 'send' | 'watch'> {
  const server = new URL(config.getCurrentCluster()?.server ?? 'http://localhost:8080');
  const prefix = server.pathname.replace(/\/$/, '');
  const { link, roomy } = newLinks(server, reload);
  const head = (method: string, path: string) => ({
    ':method': method,
    ':path': prefix + path,
    accept: 'application/json',
    'user-agent': `statefulcluster/${VERSION}`,
  });
  async function exchangeOnce(request: ApiRequest): Promise<ApiResponse> {
    const body = request.body === undefined ? undefined : written(request.body);
    const type = { 'content-type': request.contentType ?? 'application/json' };
    const headers = { ...head(request.method, request.path), ...(body && type) };
    const ms = request.timeoutMs ?? LIMITS.requestMs;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error(`no answer within ${ms} ms`)), ms);
    try {
      const { stream, used } = await link.open(headers, late.signal, body);
      late.signal.addEventListener('abort', () => stream.destroy(late.signal.reason as Error));
      let text = '';
      const answer = await exchange(stream, (chunk) => (text += chunk));
      if (answer.status === 401) link.renew(used);
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
      const link = roomy();
      link.watches++;
      let rest = '';
      try {
        const late = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.requestMs)]);
        const { stream, used } = await link.open(head('GET', path), late);
        void aborted(signal).then(() => stream.close(CANCEL));
        const answer = await exchange(stream, (chunk, status) => {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          if (status >= 400) rest = [...lines, rest].join('\n');
          else for (const line of lines) if (line !== '') on(JSON.parse(line) as WatchEvent);
        });
        if (answer.status === 401) link.renew(used);
        return { ...answer, body: answer.status < 400 ? undefined : jsonOf(rest, answer.status) };
      } finally {
        link.watches--;
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

const kept = new Map<string, unknown>();
/** Equal parts of many objects are kept once: owner references, what claims ask for. */
function shared<T>(part: T): T {
  const text = JSON.stringify(part);
  if (kept.size >= LIMITS.sharedMax) kept.clear(); // What is in use stays with its objects.
  if (!kept.has(text)) kept.set(text, part);
  return kept.get(text) as T;
}

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
    annotations: shared(ownAnnotations(m['annotations'])),
    owners: shared(m['ownerReferences'] ?? []),
    createdMs: ms(m['creationTimestamp']) ?? 0,
    deletedMs: ms(m['deletionTimestamp']),
  };
}
const KNOWN = new Set<string>(Object.values(MARK));
/** Others can be large, and nothing rests on them; of ours no more is kept than is ever written. */
const ownAnnotations = (annotations: unknown): Dict =>
  Object.fromEntries(
    Object.entries(dictOf(annotations))
      .filter(([key, value]) => KNOWN.has(key) && typeof value === 'string')
      .map(([key, value]) => [key, value.slice(0, LIMITS.annotationMax)]),
  );

const DEFAULTS = {
  replicas: 1,
  suspend: false,
  volumeClaimTemplates: [],
  serviceName: '',
  podManagementPolicy: 'Parallel',
  minReadySeconds: 0,
  revisionHistoryLimit: 10,
  replacementPolicy: 'Always',
} as const;
const ROLLING: RollingUpdate = {
  partition: 0,
  maxUnavailable: 1,
  maxSurge: 0,
  paused: false,
  podUpdatePolicy: 'InPlaceIfPossible',
};
const LIVENESS: Liveness = {
  nodeGoneSeconds: 30,
  nodeUnreachableSeconds: 300,
  volumeLostSeconds: 60,
  unreadySeconds: 0,
  startupSeconds: 0,
  maxRestarts: 0,
};
const RETENTION = {
  whenDeleted: 'Retain',
  whenScaled: 'Retain',
  whenReplaced: 'Retain',
  whenLost: 'Retain',
} as const;

/** The CRD defaults most fields; an object or a CRD older than this program may lack some. */
export function clusterOf(raw: Raw): StatefulCluster {
  const spec = (raw['spec'] ?? {}) as Raw;
  const rollingUpdate = { ...ROLLING, ...spec['updateStrategy']?.rollingUpdate };
  return {
    meta: metaOf(raw),
    status: raw['status'] ?? {},
    spec: {
      ...DEFAULTS,
      selector: {},
      template: {},
      ...spec,
      updateStrategy: { type: 'RollingUpdate', ...spec['updateStrategy'], rollingUpdate },
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
  const all = [...((status['initContainerStatuses'] ?? []) as Raw[]), ...containers];
  const volumes = (spec['volumes'] ?? []) as Raw[];
  const target = condition('DisruptionTarget');
  const mounted = condition('PodReadyToStartContainers'); // Older kubelets do not say.
  const meta = metaOf(raw);
  const isChanging = meta.annotations[MARK.inPlace] !== undefined; // Else it only costs memory.
  const idOf = (name: string): string =>
    containers.find((c) => c['name'] === name)?.['containerID'] ?? '';
  const images = ((spec['containers'] ?? []) as Raw[]).map(
    ({ name, image }) => [name, [idOf(name), image]] as const,
  );
  return {
    meta,
    node: spec['nodeName'] ?? '',
    phase: status['phase'] ?? 'Pending',
    graceSeconds: spec['terminationGracePeriodSeconds'] ?? 30,
    claims: volumes.flatMap((v) => v['persistentVolumeClaim']?.claimName ?? []),
    scheduledMs: condition('PodScheduled')?.['status'] === 'True' ? at('PodScheduled') : undefined,
    mountedMs: mounted?.['status'] === 'False' ? undefined : at((mounted ?? SCHEDULED)['type']),
    startedMs: ms(status['startTime']),
    ready: condition('Ready')?.['status'] === 'True',
    readySinceMs: at('Ready'),
    disruption: target?.['status'] === 'True' ? target['reason'] : '',
    disruptedMs: at('DisruptionTarget'),
    restarts: all.reduce((sum, c) => sum + (c['restartCount'] ?? 0), 0),
    // CrashLoopBackOff shows only near the end of the back-off, `terminated` before.
    isDown: all.some((c) => c['state']?.waiting?.reason === 'CrashLoopBackOff' || hasCrashed(c)),
    trouble: troubleOf(all, condition('PodScheduled')),
    lastWords: lastWordsIn(status, all),
    containers: shared(isChanging ? Object.fromEntries(images) : {}),
    isObserved: (status['observedGeneration'] ?? Infinity) >= meta.generation,
    resize: resizeOf(spec['containers'] ?? [], containers, conditions),
  };
}
const SCHEDULED: Raw = { type: 'PodScheduled' };
const hasCrashed = ({ state }: Raw): boolean => (state?.terminated?.exitCode ?? 0) !== 0;
/** What the kubelet said of the pod, or how a container ended last. */
function lastWordsIn({ reason, message }: Raw, containers: readonly Raw[]): string {
  const ends = containers.flatMap(({ name, state, lastState }) => {
    const end = state?.terminated ?? lastState?.terminated;
    if (!end?.exitCode) return [];
    const words = [`exit code ${end.exitCode}`, end.reason, end.message].filter(Boolean);
    return [`container ${name}: ${words.join(', ')}`];
  });
  const said = [reason, message].filter(Boolean).join(': ');
  return (said || (ends[0] ?? '')).slice(0, LIMITS.lastWordsMax);
}
/** Why a container does not run, or why the pod found no node; '' when it is just starting. */
function troubleOf(containers: readonly Raw[], scheduled: Raw | undefined): string {
  const usual = ['ContainerCreating', 'PodInitializing', undefined];
  const reasons = containers.map((c) => c['state']?.waiting?.reason);
  const found = reasons.find((reason) => !usual.includes(reason));
  return found ?? (scheduled?.['status'] === 'False' ? scheduled['reason'] : undefined) ?? '';
}
/** KEP-1287: a resize is done when the status has the resources of the spec and no condition says
 *  that it is pending or in progress. */
function resizeOf(specs: readonly Raw[], statuses: readonly Raw[], conditions: readonly Raw[]) {
  const open = conditions.find(
    (c) => c['type'] === 'PodResizePending' || c['type'] === 'PodResizeInProgress',
  );
  const words = [open?.['reason'], open?.['message']].filter(Boolean).join(': ');
  if (open) return words || 'InProgress';
  const sizes = (resources: Raw | undefined): readonly (string | undefined)[] =>
    ['requests', 'limits'].flatMap((kind) =>
      ['cpu', 'memory'].map((what) => resources?.[kind]?.[what]),
    );
  const isDone = specs.every((c) => {
    const has = statuses.find((one) => one['name'] === c['name'])?.['resources'];
    const [wanted, found] = [sizes(c['resources']), sizes(has)];
    return (
      !has || wanted.every((w, i) => w === found[i] || quantity(`${w}`) === quantity(`${found[i]}`))
    );
  });
  return isDone ? '' : 'InProgress';
}

/** Projects a PersistentVolumeClaim. */
export function claimOf(raw: Raw): Claim {
  const { spec = {}, status = {} } = raw as { spec: Raw; status: Raw };
  const { volumeName = '', ...asked } = spec;
  return {
    meta: metaOf(raw),
    phase: status['phase'] ?? 'Pending',
    volume: volumeName,
    request: spec['resources']?.requests?.storage ?? '',
    capacity: status['capacity']?.storage ?? '',
    spec: shared(asked),
  };
}

/** Projects a ControllerRevision. */
export function revisionOf(raw: Raw): Revision {
  const data = (raw['data'] ?? {}) as Raw;
  const meta = metaOf(raw);
  return {
    meta,
    hash: meta.labels[MARK.revision] ?? '',
    number: raw['revision'] ?? 0,
    template: data['template'] ?? {},
    claimTemplates: data['claimTemplates'] ?? [],
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
    unschedulable: raw['spec']?.unschedulable === true,
    taints: shared(
      taints
        .filter(({ effect }) => effect === 'NoSchedule' || effect === 'NoExecute')
        .map(({ key, value, effect }) => ({ key, value: value ?? '', effect })),
    ),
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
  on(before: T | undefined, after: T | undefined, isNews: boolean): void; // Hears of each change.
  readonly signal: AbortSignal;
  readonly optional: boolean; // The operator can work without it.
  readonly ready: PromiseWithResolvers<void>; // Listed once, or may not be and need not.
  readonly items: Map<string, T>;
  version: number; // All changes up to this resourceVersion are in.
  listedAt: number; // Uptime at which the newest list from a quorum began; -1 before the first.
  denied: string; // The API server's words when this kind may not be read.
  refusals: number; // 403s in a row; for seconds after its start an API server knows no rights yet.
  next: 'fresh' | 'again' | 'resume'; // List from nothing, list at `version`, or only watch.
  streams: boolean; // Streaming lists; older API servers page instead.
  cut: AbortController; // Ends the stream that is open.
}
interface Thing {
  readonly meta: Meta;
}
type OnChange<T> = Feed<T & Thing>['on'];

const keyOf = ({ namespace, name }: Meta): string => (namespace ? `${namespace}/${name}` : name);
const versionOf = (raw: Raw): number => Number(raw['metadata']?.resourceVersion ?? 0);
const unversioned = (o: Thing): string =>
  JSON.stringify({ ...o, meta: { ...o.meta, resourceVersion: '' } });

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
    let before = feed.version;
    try {
      if (!feed.streams && feed.next !== 'resume') await listPages(feed);
      before = feed.version; // A list that had to be made is no progress of the watch.
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
  // The kind itself is gone (its CRD was removed): so are its objects. Others cannot go.
  if (code === 404 && feed.path.includes('/enge.me/'))
    replaceAll(feed, new Map(), 0, feed.world.uptime());
  if ((code === 400 || code === 422) && feed.next !== 'resume') feed.streams = false;
  const unknown = [404, 410, 504].includes(code) || message.includes('Too large resource version');
  feed.next = unknown || feed.listedAt < 0 ? 'fresh' : 'again';
  feed.world.log('warn', 'watch restarts', { path: feed.path, code, error: message });
}

function put<T extends Thing>(feed: Feed<T>, key: string, object?: T, isNews = false): void {
  const before = feed.items.get(key);
  if (object) feed.items.set(key, Object.freeze(object));
  else feed.items.delete(key);
  // A new version alone is no news, but the next patch must name it.
  const differs = !before || !object || unversioned(before) !== unversioned(object);
  feed.on(before, object, isNews || differs);
}
/** A complete list becomes the truth at once: what is not in it is gone. */
function replaceAll<T extends Thing>(
  feed: Feed<T>,
  fresh: ReadonlyMap<string, T>,
  version: number,
  at: number,
): void {
  const wasDenied = feed.denied !== ''; // Nobody looked at what it kept: all of it is news.
  Object.assign(feed, { version, listedAt: at, denied: '', refusals: 0, next: 'resume' });
  for (const key of [...feed.items.keys()]) if (!fresh.has(key)) put(feed, key, undefined);
  for (const [key, object] of fresh) put(feed, key, object, wasDenied);
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
  // The last state of what was deleted may be news itself: whether it was on its way out.
  if (event.type === 'DELETED') feed.items.set(key, object);
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
      // An API server may tell changes, too, before it says that the list has ended.
      if (event.type === 'DELETED') fresh.delete(keyOf(object.meta));
      else fresh.set(keyOf(object.meta), object);
    } else if (raw['metadata']?.annotations?.['k8s.io/initial-events-end'] === 'true') {
      // At a version, not from a quorum: it may be older than what was written here.
      replaceAll(feed, fresh, versionOf(raw), next === 'fresh' ? at : feed.listedAt);
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

/** Rings once for each key, at the earliest time that was asked for. */
function newAlarms(world: World, ring: (key: string) => void) {
  const due = new Map<string, { readonly at: number; readonly timer: AbortController }>();
  return (key: string, delayMs: number): void => {
    const at = world.uptime() + delayMs;
    const earlier = due.get(key);
    if (delayMs === Infinity || (earlier && earlier.at <= at)) return;
    earlier?.timer.abort();
    const timer = new AbortController();
    due.set(key, { at, timer });
    void world.sleep(delayMs, timer.signal).then(() => {
      if (timer.signal.aborted) return; // An earlier time took its place.
      due.delete(key);
      ring(key);
    });
  };
}
/** `add` and `addAfter` take keys at any time; they wait until `start`. `stop` takes up no further
 *  key and resolves when the running ones have ended. The larger a key is (`sizeOf`), the longer it
 *  rests: its events are looked at in batches, and it leaves time to others. */
export function newQueue(
  world: World,
  workers: number,
  work: (key: string) => Promise<void>,
  sizeOf: (key: string) => number = () => 0,
) {
  const waiting = new Set<string>();
  const running = new Map<string, Promise<void>>();
  const failures = new Map<string, number>();
  const resting = new Set<string>();
  let open = false;
  function add(key: string): void {
    waiting.add(key);
    pump();
  }
  const addAfter = newAlarms(world, add);
  async function run(key: string): Promise<void> {
    try {
      const done = work(key);
      rest(key, LIMITS.restEachMs * sizeOf(key)); // From when it was looked at, not from its end.
      await done;
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
  function rest(key: string, ms: number): void {
    if (ms < LIMITS.restMinMs) return;
    resting.add(key);
    void world.sleep(Math.min(ms, LIMITS.restMaxMs)).then(() => (resting.delete(key), pump()));
  }
  function pump(): void {
    for (const key of waiting) {
      if (!open || running.size >= workers) return;
      if (running.has(key) || resting.has(key)) continue;
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
  return { add, addAfter, start, stop, depth: (): number => waiting.size };
}

// ═══ 11 EXECUTOR · effects ═══════════════════════════════════════════════════════════════════════
// Does what the plan says, stage by stage. Whatever is changed or deleted is named by UID, and by
// version where that matters, so a newer object of the same name is never hit. What fails holds
// back only what comes later for the same member and for its successor. It draws no conclusions:
// what was refused, and what ended, is left on the desk for the next plan.

/** What the cache must show of a write: its version, that the object is gone, or, since nobody
 *  knows what came of it, a whole list that began later. */
type Needs = 'version' | 'absence' | 'list';
/** The desk, as the rooms below THE LINE write on it. */
interface OpenDesk {
  readonly seen: Map<string, number>;
  readonly went: Map<string, Went>;
  readonly vanished: Set<string>;
  readonly calm: Map<string, number>;
  readonly backoff: Map<string, Backoff>;
}
/** One pass over one cluster: where to write, and what came of it. */
export interface Pass {
  readonly world: World;
  readonly cluster: StatefulCluster;
  readonly nodesReadable: boolean;
  readonly desk: OpenDesk;
  readonly newest: Map<string, Meta>; // Kind and name → the object as this pass left it.
  readonly done: Set<Action>;
  readonly held: Set<string>; // Identities for which nothing more is done in this pass.
  readonly errors: Map<Action, unknown>; // But refusals that are noted for the action itself.
  isCut: boolean; // Time was up before all members were made.
  expect(kind: Kind | 'statefulclusters', meta: Meta, needs: Needs): void;
  isCurrent(): boolean; // The cluster is as it was planned upon, and nobody said stop.
}

const inNamespace = (namespace: string): string => namespace && `/namespaces/${namespace}`;
const pathOf = (kind: Kind, namespace: string, name = ''): string =>
  (kind === REVISIONS ? '/apis/apps/v1' : '/api/v1') +
  `${inNamespace(namespace)}/${kind}${name && `/${name}`}`;
const clusterPath = (namespace: string, name = ''): string =>
  `/apis/enge.me/v1alpha1${inNamespace(namespace)}/statefulclusters${name && `/${name}`}`;
const FIELDS = 'fieldManager=statefulcluster';
const MERGE = { method: 'PATCH', contentType: 'application/merge-patch+json' } as const;
const STRATEGIC = {
  method: 'PATCH',
  contentType: 'application/strategic-merge-patch+json',
} as const;

/** Does `work` for each, at most so many at once as fit in a batch. */
async function forEach<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items.values(); // All runners take from it.
  const run = async (): Promise<void> => {
    for (const item of rest) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(items.length, LIMITS.batchMax) }, run));
}

// ── Writes ──────────────────────────────────────────────────────────────────────────────────────
/** Nobody knows whether it landed. What is repeated with a precondition is safe all the same. */
const isOpen = (error: unknown, method: ApiRequest['method']): boolean =>
  error instanceof ApiError &&
  (error.code === 0 ||
    (method === 'POST' && (error.code >= 500 || [408, 429].includes(error.code))));
/** A patch that carries the UID of an object of which the name is another's by now. */
const isOther = (error: unknown): error is ApiError =>
  error instanceof ApiError && error.code === 422 && error.message.includes('metadata.uid');

/** Every write of a pass goes through here: without an answer, only a new list can tell. */
async function send(pass: Pass, kind: Kind | 'statefulclusters', request: ApiRequest) {
  try {
    return await call(pass.world, request);
  } catch (error) {
    if (isOpen(error, request.method)) pass.expect(kind, pass.cluster.meta, 'list');
    throw isOther(error) ? new ApiError(409, 'Conflict', error.message) : error;
  }
}
/** The cache has to show what the API server made of a write. */
function shown(pass: Pass, kind: Kind | 'statefulclusters', raw: Raw): Meta {
  const meta = metaOf(raw);
  pass.newest.set(`${kind}/${meta.name}`, meta);
  pass.expect(kind, meta, 'version');
  return meta;
}
/** An object as it was decided upon, or as an earlier action of this pass left it. */
const latest = ({ newest }: Pass, { kind, object: { meta } }: Patch | Delete | Update): Meta =>
  newest.get(`${kind}/${meta.name}`) ?? meta;

/** A patch that lands only on the very object and version that was decided upon; false when that
 *  is gone. */
async function patch(pass: Pass, a: Patch | Update, change: Json, how: PatchType = MERGE) {
  const { under = '', ...type } = how;
  const { namespace, name, resourceVersion } = latest(pass, a);
  const { uid } = a.object.meta;
  const path = `${pathOf(a.kind, namespace, name)}${under}?${FIELDS}`;
  const body = { ...change, metadata: { ...(change['metadata'] as Json), uid, resourceVersion } };
  try {
    shown(pass, a.kind, await send(pass, a.kind, { ...type, path, body }));
    return true;
  } catch (error) {
    // An old API server answers 404 where it does not know the subresource.
    if (!isGone(error) || under) throw error;
    pass.expect(a.kind, a.object.meta, 'absence');
    return false;
  }
}
type PatchType = Pick<ApiRequest, 'method' | 'contentType'> & { readonly under?: '/resize' };

/** A delete that hits only the object that was decided upon. Gone already is as good. */
async function remove(pass: Pass, a: Delete): Promise<boolean> {
  const { namespace, name, uid, resourceVersion } = latest(pass, a);
  // I3: the version too, so that a claim bound in the meantime is not deleted as unbound.
  const preconditions = a.kind === CLAIMS ? { uid, resourceVersion } : { uid };
  // A grace period of 0 is a force-delete, which frees the name while containers may still run.
  const grace = 'graceSeconds' in a.object && {
    gracePeriodSeconds: Math.max(1, a.object.graceSeconds),
  };
  const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions, ...grace };
  const path = pathOf(a.kind, namespace, name);
  await send(pass, a.kind, { method: 'DELETE', path, body }).catch((error: unknown) => {
    if (!isGone(error)) throw error;
  });
  pass.expect(a.kind, a.object.meta, 'absence');
  return true;
}

/** POST that repeats safely: what is there already and is ours counts as made, and undefined comes
 *  back. Throws AlreadyExists for any other, which is neither adopted nor touched (I8). */
async function create(pass: Pass, kind: Kind, body: Body): Promise<Meta | undefined> {
  const { namespace } = pass.cluster.meta;
  const path = `${pathOf(kind, namespace)}?${FIELDS}`;
  try {
    return shown(pass, kind, await send(pass, kind, { method: 'POST', path, body }));
  } catch (error) {
    if (!isTaken(error)) throw error;
  }
  const there = { method: 'GET', path: pathOf(kind, namespace, body.metadata.name) } as const;
  const raw = await call(pass.world, there).catch((error: unknown) => {
    throw new ApiError(0, 'NoAnswer', wordsOf(error)); // Gone by now, or not known whose it is.
  });
  const meta = metaOf(raw);
  if (!isOurs(pass, kind, meta, body)) throw new ApiError(409, 'AlreadyExists', whose(kind, meta));
  shown(pass, kind, raw);
  return undefined;
}
/** Was it made by an earlier POST of this very body? */
function isOurs({ cluster }: Pass, kind: Kind, meta: Meta, body: Body): boolean {
  const asked = body.metadata['labels'] as Dict;
  const { labels, annotations } = meta;
  const isNamed = [MARK.cluster, MARK.identity].every((key) => labels[key] === asked[key]);
  if (!isNamed || isTerminating({ meta })) return false;
  if (isControlledBy(meta, cluster.meta.uid) !== true && (kind !== CLAIMS || hasController(meta)))
    return false;
  return kind !== CLAIMS || (MARK.claims in annotations && !(MARK.retired in annotations));
}
function whose(kind: Kind, meta: Meta): string {
  const owner = meta.owners.find((o) => o.controller) ?? meta.owners[0];
  const words = owner ? `belongs to ${owner.kind} ${owner.name}` : 'belongs to nobody';
  return `${kind} ${meta.name} is there already and ${isTerminating({ meta }) ? 'is being deleted' : words}`;
}

// ── Actions ─────────────────────────────────────────────────────────────────────────────────────
/** One action; false when there is nothing left to do it to. */
async function perform(pass: Pass, a: Action): Promise<boolean> {
  switch (a.do) {
    case 'Patch':
      return (await patch(pass, a, a.change)) || a.verb === 'retire'; // Nothing is left to mark.
    case 'Delete':
      return remove(pass, a);
    case 'Update':
      // The resize goes first: what cannot be resized may need another way, and only the second
      // patch says that all was asked for.
      if (a.resize) await patch(pass, a, a.resize, { ...STRATEGIC, under: '/resize' });
      return patch(pass, a, a.change, STRATEGIC);
    case 'Record':
      await create(pass, REVISIONS, a.body);
      return true;
    case 'Make':
      return makeMember(pass, a);
    default:
      return a satisfies never;
  }
}

/** Claims first, then the pod. Nothing is rolled back: what was made is found again. */
async function makeMember(pass: Pass, a: Make): Promise<true> {
  const { cluster, nodesReadable } = pass;
  const claims = a.claims.map(async (template) =>
    create(pass, CLAIMS, claimBody(cluster, a.identity, template, a)),
  );
  for (const t of await Promise.allSettled(claims)) if (t.status === 'rejected') throw t.reason;
  const body = podBody(cluster, a.identity, a.revision, { ...a, nodesReadable });
  const pod = await create(pass, PODS, body);
  if (!pod || selectorMatches(cluster.spec.selector, pod.labels)) return true;
  const asked = body.metadata['labels'] as Dict;
  const keys = unique([...Object.keys(asked), ...Object.keys(pod.labels)]);
  const changed = keys.filter((key) => asked[key] !== pod.labels[key]);
  const words = `admission changes the labels of new pods: ${fewNames(changed)}`;
  throw new ApiError(422, 'Invalid', `${words}; the selector would not match them`);
}

/** Under this key it is noted that an action itself was refused; for a member to make, that its
 *  name is taken. */
const noteKey = (a: Action): string => (a.do === 'Make' ? `taken/${a.identity}` : keyOfAction(a));
function note({ desk, world }: Pass, key: string, message: string): void {
  desk.backoff.set(key, nextBackoff(desk.backoff.get(key), message, world.uptime()));
}
/** Does one action, or notes why not. A refusal is not repeated before its time. */
async function attempt(pass: Pass, a: Action): Promise<void> {
  const { desk, world, done, held, errors } = pass;
  const key = noteKey(a);
  try {
    if (!waiting(desk.backoff, key, world.uptime()) && (await perform(pass, a))) {
      done.add(a);
      desk.backoff.delete(key);
      settle(pass, a);
    }
  } catch (error) {
    const isNoted = a.do === 'Make' ? isTaken(error) : isRefusal(error);
    if (isNoted) note(pass, key, wordsOf(error));
    else errors.set(a, error);
  }
  if (!done.has(a) && stageOf(a) !== 'keep' && a.identity !== '') held.add(a.identity);
}
/** What a thing done leaves on the desk: the end of an identity, or a return, so that a member that
 *  ends again and again returns ever more slowly. */
function settle(pass: Pass, a: Action): void {
  const { went } = pass.desk;
  if (a.do === 'Make' && a.because === 'Returned') note(pass, `return/${a.identity}`, '');
  if (!(a.because in ENDS) || !(a.do === 'Delete' || a.do === 'Patch')) return;
  const isGoing = a.verb === 'end' && latest(pass, a).annotations[MARK.returns] === undefined;
  if (!isGoing && a.verb !== 'retire') return;
  const pod = isGoing ? (a.object as Pod) : went.get(a.identity)?.pod;
  went.set(a.identity, { pod, reason: a.because as EndReason, atMs: pass.world.now() });
}

/** Slow start as in ReplicaSet: 1, 2, 4, … at a time, and no further batch after a failure. A name
 *  that is taken is none: it says nothing of the others. */
async function makeMembers(pass: Pass, all: readonly Make[]): Promise<void> {
  const { world, cluster, desk, done, errors } = pass;
  const untilUptime = world.uptime() + LIMITS.passMs;
  for (let start = 0, size = 1; start < all.length; start += size, size *= 2) {
    if (!pass.isCurrent()) break; // The rest of the plan is void.
    pass.isCut = start > 0 && world.uptime() >= untilUptime;
    if (pass.isCut) break;
    size = Math.min(size, LIMITS.batchMax);
    const batch = all.slice(start, start + size);
    await forEach(batch, (a) => attempt(pass, a));
    if (batch.some((a) => errors.has(a))) break;
  }
  if (all.some((a) => done.has(a))) desk.backoff.delete(makeKey(cluster));
  const refusal = firstError(pass, all, isRefusal);
  if (refusal) note(pass, makeKey(cluster), wordsOf(refusal));
}
/** The first in the plan, not in time: the status tells it, and it must not change from pass to
 *  pass. */
const firstError = (
  { errors }: Pass,
  actions: readonly Action[],
  is: (error: unknown) => boolean,
): unknown => actions.map((a) => errors.get(a)).find((error) => error !== undefined && is(error));

const stageOf = (a: Action): (typeof STAGES)[number] => VERBS[a.verb][0];
/** I4: a member that could not be ended keeps its place, whoever was to come after it. */
const goesOn = ({ held }: Pass, a: Action): boolean =>
  !held.has(a.identity) && !(a.do === 'Make' && held.has(a.after ?? ''));
/** Runs the actions stage by stage: those of one member one after the other, members side by
 *  side. Never rejects; what failed stands in `pass.errors`. */
async function execute(pass: Pass, actions: readonly Action[]): Promise<void> {
  for (const stage of STAGES) {
    const now = actions.filter((a) => stageOf(a) === stage);
    const makes = now.flatMap((a) => (a.do === 'Make' && goesOn(pass, a) ? [a] : []));
    await makeMembers(pass, makes);
    const others = now.filter((a) => a.do !== 'Make');
    const groups = Map.groupBy(others, (a): unknown => a.identity || a);
    await forEach([...groups.values()], async (group) => {
      for (const a of group) if (goesOn(pass, a)) await attempt(pass, a);
    });
  }
  // Nothing is to be made any more: what was refused is no news.
  const { desk, world, cluster } = pass;
  const isMaking = actions.some((a) => a.do === 'Make');
  if (!isMaking && !waiting(desk.backoff, makeKey(cluster), world.uptime()))
    desk.backoff.delete(makeKey(cluster));
}
// ═══ 12 CONTROLLER · effects ═════════════════════════════════════════════════════════════════════
// reconcile(key): snapshot → decide → execute → status → requeue. It moves what the rooms above THE
// LINE decided, and has no ifs on what a member is. Between two passes a process keeps one Ledger
// for each cluster: to lose it makes the operator wait longer, and never ends anything sooner.

/** What `run` was told. */
export interface Options {
  readonly namespaces: readonly string[]; // Empty: all.
  readonly selector: string; // Of the StatefulClusters; '' for all.
  readonly workers: number;
  readonly observer?: Observer;
}
/** Is told what happens, for PROBES; nothing rests on it. */
export interface Observer {
  leads(): void;
  synced(queueDepth: () => number): void;
  passed(ms: number, result: 'success' | 'error'): void;
  /** No members and no status: the cluster is gone. */
  saw(cluster: string, members: readonly Member[], status: Status | undefined): void;
  replaced(because: Reason): void;
}
/** A write that the cache must show before its cluster is planned again. */
interface Expectation {
  readonly feed: Feed<Thing>;
  readonly meta: Meta;
  readonly needs: Needs;
  at: number; // Uptime of the write, or of the newest list that was asked for its sake.
}
/** What is kept for one cluster between passes. */
interface Ledger {
  readonly uid: string;
  readonly told: Map<string, { name: string; count: number; at: number }>; // Events.
  desk: OpenDesk;
  expected: Expectation[];
  statusAt: number;
}
interface Scope {
  readonly statefulclusters: Feed<StatefulCluster>;
  readonly pods: Feed<Pod>;
  readonly persistentvolumeclaims: Feed<Claim>;
  readonly controllerrevisions: Feed<Revision>;
}
interface Children {
  readonly pods: Map<string, Pod>;
  readonly persistentvolumeclaims: Map<string, Claim>;
  readonly controllerrevisions: Map<string, Revision>;
}
/** All state of a running operator. */
interface Operator {
  readonly world: World;
  readonly signal: AbortSignal;
  readonly ledgers: Map<string, Ledger>;
  readonly children: Map<string, Children>; // By cluster key, kept as the feeds change.
  readonly volumes: Map<string, Volume>; // Read once, by name.
  readonly scopes: Map<string, Scope>; // By namespace, '' for all.
  nodes: Feed<Node> | undefined;
  blindUntil: number; // Uptime at which a volume may be read again, after a 403.
  readonly queue: ReturnType<typeof newQueue>;
  readonly observer: Observer | undefined;
}

function newOperator(outer: World, options: Options, signal: AbortSignal): Operator {
  const world = onServerClock(outer);
  const work = (key: string): Promise<void> => timed(o, () => reconcile(o, key));
  const sizeOf = (key: string): number => o.children.get(key)?.pods.size ?? 0;
  const o: Operator = {
    world,
    signal,
    ledgers: new Map(),
    children: new Map(),
    volumes: new Map(),
    scopes: new Map(),
    nodes: undefined,
    blindUntil: 0,
    queue: newQueue(world, options.workers, work, sizeOf),
    observer: options.observer,
  };
  return o;
}
/** The whole operator on one World, until aborted: what `run` starts and the simulation runs. */
export async function runOperator(
  outer: World,
  options: Options,
  signal: AbortSignal,
): Promise<void> {
  const o = newOperator(outer, options, signal);
  const { world, queue, observer } = o;
  observer?.leads();
  const feeds = startFeeds(o, options);
  const done = Promise.all(feeds.map((feed) => feed.done));
  await Promise.race([Promise.all(feeds.map((feed) => feed.ready.promise)), aborted(signal)]);
  if (!signal.aborted) {
    // Nothing is planned from a view that is not whole.
    const keys = [...o.scopes.values()].flatMap((scope) => [
      ...scope.statefulclusters.items.keys(),
    ]);
    world.log('info', 'caches are synced', { clusters: keys.length });
    for (const key of keys) queue.add(key);
    observer?.synced(queue.depth);
    queue.start();
  }
  await aborted(signal);
  // Whatever hangs is abandoned: the next start finds it done or undone.
  await Promise.race([Promise.all([queue.stop(), done]), world.sleep(LIMITS.stopMaxMs)]);
}
const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve());
  });

const SKEW_MS = 2_000; // Answers tell whole seconds, and take their time to arrive.
const SKEW_TOLD_MS = 30_000;
/** The same World with the API server's clock: all that is compared with the time was written by
 *  it, or through it. */
function onServerClock(world: World): World {
  let [offset, isTold] = [0, false];
  const learn = ({ headers }: ApiResponse): void => {
    const skew = Date.parse(headers['date'] ?? '') - world.now();
    if (!(Math.abs(skew - offset) > SKEW_MS)) return; // Nor when no time is told.
    offset = skew;
    if (isTold || Math.abs(skew) <= SKEW_TOLD_MS) return;
    isTold = true;
    world.log('warn', "this machine's clock is not the API server's, which counts", { skew });
  };
  return {
    ...world,
    now: () => world.now() + offset,
    async send(request) {
      const answer = await world.send(request);
      learn(answer);
      return answer;
    },
  };
}

// ── Feeds ───────────────────────────────────────────────────────────────────────────────────────
function startFeeds(o: Operator, options: Options) {
  const feeds: { readonly ready: PromiseWithResolvers<void>; readonly done: Promise<void> }[] = [];
  const watch = <T extends Thing>(path: string, project: (raw: Raw) => T, on: OnChange<T>) => {
    const optional = path === '/api/v1/nodes';
    const feed = follow({ world: o.world, path, project, on, signal: o.signal, optional });
    feeds.push(feed);
    return feed;
  };
  // Other workloads cost nothing.
  const children = <T extends Thing>(kind: Kind, ns: string, project: (raw: Raw) => T) =>
    watch(
      `${pathOf(kind, ns)}?labelSelector=${encodeURIComponent(MARK.cluster)}`,
      project,
      (a, b, isNews) => onChild(o, kind, a, b, isNews),
    );
  const chosen = options.selector && `?labelSelector=${encodeURIComponent(options.selector)}`;
  for (const ns of options.namespaces.length > 0 ? options.namespaces : ['']) {
    o.scopes.set(ns, {
      pods: children(PODS, ns, podOf),
      persistentvolumeclaims: children(CLAIMS, ns, claimOf),
      controllerrevisions: children(REVISIONS, ns, revisionOf),
      statefulclusters: watch(clusterPath(ns) + chosen, clusterOf, (a, b, isNews) => {
        const meta = (b ?? a)?.meta;
        if (meta && isNews) o.queue.add(keyOf(meta));
      }),
    });
  }
  o.nodes = watch('/api/v1/nodes', nodeOf, (a, b, isNews) => isNews && onNode(o, a, b));
  return feeds;
}
const scopeWith = (o: Operator, key: string): Scope | undefined =>
  o.scopes.get(key.slice(0, key.indexOf('/'))) ?? o.scopes.get('');

const clusterKeyOf = ({ meta }: Thing): string =>
  `${meta.namespace}/${meta.labels[MARK.cluster] ?? ''}`;
function childrenOf(o: Operator, key: string): Children {
  const none = {
    pods: new Map(),
    persistentvolumeclaims: new Map(),
    controllerrevisions: new Map(),
  };
  const found = o.children.get(key) ?? none;
  o.children.set(key, found);
  return found;
}
/** Keeps the index of children by cluster, and wakes the cluster once the index is right. */
function onChild(
  o: Operator,
  kind: Kind,
  before: Thing | undefined,
  after: Thing | undefined,
  isNews: boolean,
): void {
  const [from, to] = [before && clusterKeyOf(before), after && clusterKeyOf(after)];
  if (before && from !== undefined && from !== to) {
    const all = childrenOf(o, from);
    all[kind].delete(before.meta.name);
    if (Object.values(all).every((one) => one.size === 0)) o.children.delete(from);
    onLeft(o, from, kind, before);
  }
  if (after && to !== undefined) {
    (childrenOf(o, to)[kind] as Map<string, Thing>).set(after.meta.name, after);
    if (from !== to) onCame(o, to, kind, after);
  }
  for (const key of unique([from, to])) if (key !== undefined && isNews) o.queue.add(key);
}
/** A pod that was seen to end is remembered, with its node and its last words. What left the watch
 *  without an end may have lost its label only: the next pass reads it live. */
function onLeft(o: Operator, key: string, kind: Kind, child: Thing): void {
  const { uid, desk } = o.ledgers.get(key) ?? {};
  if (!desk || kind === REVISIONS) return;
  if (kind === CLAIMS && !isTerminating(child)) desk.vanished.add(`${kind}/${child.meta.name}`);
  if (kind !== PODS || !isControlledBy(child.meta, uid ?? '')) return;
  const pod = child as Pod;
  const identity = identityOf(pod, pod.meta.labels[MARK.cluster] ?? '');
  const reason = desk.went.get(identity)?.reason;
  if (isTerminating(pod)) desk.went.set(identity, { pod, reason, atMs: o.world.now() });
  else desk.vanished.add(`${kind}/${pod.meta.name}`);
  // A quota may have room again: what was refused is tried at once.
  const cluster = scopeWith(o, key)?.statefulclusters.items.get(key);
  const refused = cluster && desk.backoff.get(makeKey(cluster));
  if (refused) desk.backoff.set(makeKey(cluster), { ...refused, untilUptime: o.world.uptime() });
}
function onCame(o: Operator, key: string, kind: Kind, child: Thing): void {
  const { uid, desk } = o.ledgers.get(key) ?? {};
  desk?.vanished.delete(`${kind}/${child.meta.name}`);
  if (!desk || kind !== PODS || !isControlledBy(child.meta, uid ?? '')) return;
  const identity = identityOf(child as Pod, child.meta.labels[MARK.cluster] ?? '');
  if (desk.went.get(identity)?.reason === undefined) desk.went.delete(identity);
}
/** A node matters to the members on it, and to all that look for one or may have to leave theirs. */
function onNode(o: Operator, before: Node | undefined, after: Node | undefined): void {
  const name = (after ?? before)?.meta.name ?? '';
  const nodes = o.nodes?.items;
  for (const [key, { pods, persistentvolumeclaims: claims }] of o.children) {
    const cluster = key.slice(key.indexOf('/') + 1);
    const isPodOf = (pod: Pod): boolean =>
      pod.node === name || !pod.ready || isTerminating(pod) || nodes?.has(pod.node) !== true;
    const isClaimOf = ({ meta: { annotations, labels } }: Claim): boolean =>
      annotations[MARK.selectedNode] === name ||
      (!(MARK.retired in annotations) && !pods.has(podName(cluster, labels[MARK.identity] ?? '')));
    if ([...pods.values()].some(isPodOf) || [...claims.values()].some(isClaimOf)) o.queue.add(key);
  }
}

// ── What is kept between passes ─────────────────────────────────────────────────────────────────
const openDesk = (desk: Desk): OpenDesk => ({
  seen: new Map(desk.seen),
  went: new Map(desk.went),
  vanished: new Set(desk.vanished),
  calm: new Map(desk.calm),
  backoff: new Map(desk.backoff),
});
function ledgerOf(o: Operator, key: string, uid: string): Ledger {
  const known = o.ledgers.get(key);
  if (known?.uid === uid) return known;
  const [none, nobody] = [new Map(), new Set<string>()];
  const desk = openDesk({ seen: none, went: none, vanished: nobody, calm: none, backoff: none });
  const ledger = { uid, told: new Map(), desk, expected: [], statusAt: -Infinity };
  o.ledgers.set(key, ledger);
  return ledger;
}

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
function hasCaughtUp(o: Operator, key: string, ledger: Ledger): boolean {
  ledger.expected = ledger.expected.filter((e) => !isSeen(e));
  if (ledger.expected.length === 0) return true;
  const uptime = o.world.uptime();
  // A list that is on its way is left to end, however slow it is: cut, it would never be whole.
  const late = ledger.expected.filter(
    ({ feed, needs, at }) =>
      feed.next === 'resume' && (needs === 'list' || uptime - at >= LIMITS.catchUpMaxMs),
  );
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

/** Copies throughout: the feeds go on while the pass waits for answers. */
function snapshotOf(o: Operator, cluster: StatefulCluster, ledger: Ledger, scope: Scope): Snapshot {
  const { pods, persistentvolumeclaims, controllerrevisions } = childrenOf(o, keyOf(cluster.meta));
  const claims = new Map(persistentvolumeclaims);
  const volumes = new Map<string, Volume>();
  for (const { volume } of claims.values()) lay(volumes, volume, o.volumes.get(volume));
  return {
    cluster,
    pods: new Map(pods),
    claims,
    revisions: new Map(controllerrevisions),
    nodes: o.nodes?.denied === '' ? new Map(o.nodes.items) : undefined,
    volumes,
    volumesReadable: o.world.uptime() >= o.blindUntil,
    bodies: new Map(),
    answers: new Map(),
    desk: openDesk(ledger.desk),
    denied:
      scope.pods.denied || scope.persistentvolumeclaims.denied || scope.controllerrevisions.denied,
    uptime: o.world.uptime(),
  };
}

// ── Questions and answers ───────────────────────────────────────────────────────────────────────
const NO_ANSWER = 'no answer: '; // So begin the words of what is unknown, not refused.
/** An object, or nothing: there is none; or why that is not known, or what a trial was told. */
interface Found {
  readonly raw?: Raw;
  readonly words: string;
}
/** Plans, reads live what the plan asks for, and plans again, until it answers. What cannot be read
 *  stays unknown in this pass, and so does what is asked for too late. */
async function decide(o: Operator, first: Snapshot): Promise<{ s: Snapshot; p: Plan }> {
  let s = first;
  for (let round = 0; ; round++) {
    const p = plan(s, o.world.now(), o.world.random);
    if (p.ask === undefined) return { s, p };
    const { answers, cluster } = s;
    const refs = p.ask.filter((ref) => !answers.has(keyOfRef(ref)));
    assert(refs.length > 0, 'a plan asks for nothing that was answered');
    const found = new Map<Ref, Found>(
      refs.map((r) => [r, { words: `${NO_ANSWER}not read in this pass` }]),
    );
    if (round < LIMITS.askMax)
      await forEach(refs, async (ref) => found.set(ref, await read(o, cluster.meta, ref)));
    s = overlay(o, s, found);
  }
}
/** A live GET, or a trial. */
async function read(o: Operator, { namespace }: Meta, ref: Ref): Promise<Found> {
  const { kind, name } = ref;
  if (kind === 'trials') return { words: await tryOut(o.world, namespace, ref.bodies ?? []) };
  const path =
    kind === 'nodes' || kind === 'persistentvolumes'
      ? `/api/v1/${kind}/${name}`
      : kind === 'statefulclusters'
        ? clusterPath(namespace, name)
        : pathOf(kind, namespace, name);
  try {
    return { raw: await call(o.world, { method: 'GET', path }), words: '' };
  } catch (error) {
    if (isGone(error)) return { words: '' };
    const isDenied = error instanceof ApiError && error.code === 403;
    if (kind !== 'persistentvolumes' || !isDenied) return { words: NO_ANSWER + wordsOf(error) };
    o.blindUntil = o.world.uptime() + LIMITS.backoffMaxMs;
    return { words: '' };
  }
}
/** A dry-run; of a name that exists, that is the last thing to be objected to. */
async function tryOut(world: World, namespace: string, bodies: readonly Body[]): Promise<string> {
  for (const body of bodies) {
    const kind = body.kind === 'Pod' ? PODS : CLAIMS;
    const path = `${pathOf(kind, namespace)}?dryRun=All&fieldValidation=Strict&${FIELDS}`;
    try {
      await call(world, { method: 'POST', path, body });
    } catch (error) {
      const words = wordsOf(error);
      if (isTaken(error)) continue;
      if (!isRefusal(error)) return NO_ANSWER + words;
      if (!words.includes('does not support dry run')) return words;
      world.log('warn', 'a trial was not possible, and counts as passed', { words });
    }
  }
  return '';
}

function lay<T>(map: Map<string, T> | undefined, name: string, object: T | undefined): void {
  if (object) map?.set(name, object);
  else map?.delete(name);
}
/** Lays what was read live over the snapshot. */
function overlay(o: Operator, s: Snapshot, found: ReadonlyMap<Ref, Found>): Snapshot {
  const [pods, claims, revisions] = [new Map(s.pods), new Map(s.claims), new Map(s.revisions)];
  const [volumes, nodes] = [new Map(s.volumes), s.nodes && new Map(s.nodes)];
  const [bodies, answers] = [new Map(s.bodies), new Map(s.answers)];
  let { cluster } = s;
  for (const [ref, { raw, words }] of found) {
    const { kind, name } = ref;
    answers.set(keyOfRef(ref), words);
    if (words !== '' || kind === 'trials') continue;
    if (kind === 'pods') lay(bodies, name, raw);
    if (kind === 'pods') lay(pods, name, raw && podOf(raw));
    else if (kind === 'persistentvolumeclaims') lay(claims, name, raw && claimOf(raw));
    else if (kind === 'controllerrevisions') lay(revisions, name, raw && revisionOf(raw));
    else if (kind === 'nodes') lay(nodes, name, raw && nodeOf(raw));
    else if (kind === 'statefulclusters') cluster = sameCluster(cluster, raw);
    else if (kind === 'persistentvolumes') {
      lay(volumes, name, raw && volumeOf(raw));
      lay(o.volumes, name, volumes.get(name));
    } else kind satisfies never;
  }
  pruneVolumes(o);
  // What was read is there, or gone: it has not vanished.
  const vanished = new Set([...s.desk.vanished].filter((key) => answers.get(key) !== ''));
  const desk = { ...s.desk, vanished };
  const volumesReadable = o.world.uptime() >= o.blindUntil;
  return {
    ...s,
    cluster,
    pods,
    claims,
    revisions,
    volumes,
    nodes,
    bodies,
    answers,
    desk,
    volumesReadable,
  };
}
function sameCluster({ meta }: StatefulCluster, raw: Raw | undefined): StatefulCluster {
  const live = raw && clusterOf(raw);
  if (live?.meta.uid === meta.uid) return live;
  throw new ApiError(410, 'Gone', 'the cluster is gone: the cache will say so');
}
function pruneVolumes({ volumes, children }: Operator): void {
  const claims = [...children.values()].flatMap((c) => [...c.persistentvolumeclaims.values()]);
  if (volumes.size <= 2 * claims.length) return;
  const named = new Set(claims.map((claim) => claim.volume));
  for (const name of volumes.keys()) if (!named.has(name)) volumes.delete(name);
}

// ── One pass ────────────────────────────────────────────────────────────────────────────────────
function passOf(o: Operator, key: string, s: Snapshot, ledger: Ledger, scope: Scope): Pass {
  const { cluster } = s;
  return {
    world: o.world,
    cluster,
    nodesReadable: s.nodes !== undefined,
    desk: ledger.desk,
    newest: new Map(),
    done: new Set(),
    held: new Set(),
    errors: new Map(),
    isCut: false,
    expect(kind, meta, wanted) {
      const feed: Feed<Thing> = scope[kind];
      // A view that is later and lacks it is of before etcd was restored: only a list can tell.
      const isLost = feed.version >= Number(meta.resourceVersion) && !feed.items.has(keyOf(meta));
      const needs = wanted === 'version' && isLost ? 'list' : wanted;
      ledger.expected.push({ feed, meta, needs, at: o.world.uptime() });
      if (needs === 'list' && feed.next === 'resume') relist(feed);
    },
    isCurrent() {
      const meta = scope.statefulclusters.items.get(key)?.meta;
      const { uid, generation } = cluster.meta;
      const same = meta?.uid === uid && meta.generation === generation;
      return same && meta.deletedMs === undefined && !o.signal.aborted;
    },
  };
}

async function reconcile(o: Operator, key: string): Promise<void> {
  const scope = scopeWith(o, key);
  const cluster = scope?.statefulclusters.items.get(key);
  if (!scope || !cluster) {
    const left = o.ledgers.get(key);
    if (left && !hasCaughtUp(o, key, left)) return; // It may be chosen again before that.
    o.observer?.saw(key, [], undefined);
    return void o.ledgers.delete(key);
  }
  const ledger = ledgerOf(o, key, cluster.meta.uid);
  if (!hasCaughtUp(o, key, ledger)) return;
  try {
    await passOver(o, key, cluster, ledger, scope);
  } catch (error) {
    if (!(error instanceof ApiError)) await confess(o, cluster, ledger, error);
    throw error;
  }
}
async function passOver(
  o: Operator,
  key: string,
  cached: StatefulCluster,
  ledger: Ledger,
  scope: Scope,
): Promise<void> {
  const { s, p } = await decide(o, snapshotOf(o, cached, ledger, scope));
  const pass = passOf(o, key, s, ledger, scope);
  await execute(pass, p.actions);
  const done = p.actions.filter((a) => pass.done.has(a));
  const desk = openDesk(ledger.desk); // The status tells what was done, and what was refused.
  ledger.desk = openDesk(remember(s, p, ledger.desk));
  await o.world.sleep(0); // Others have their turn: the status of a large cluster takes long.
  try {
    const status = statusOf({ ...s, desk }, p, done, o.world.now());
    o.observer?.saw(key, p.members, status);
    await report(o, pass, ledger, status);
  } finally {
    const refusal = firstError(pass, p.actions, isRefusal);
    const news = storiesOf(done);
    for (const a of done) if (a.do === 'Make' && a.replaces) o.observer?.replaced(a.because);
    for (const story of refusal ? [...news, refusedStory(refusal)] : news)
      await recordEvent(o.world, s.cluster, ledger, story);
  }
  requeue(o, key, ledger, pass, p);
  const failure = firstError(pass, p.actions, (error) => !isRefusal(error));
  if (failure) throw failure;
  const unknown = [...s.answers.values()].find((words) => words.startsWith(NO_ANSWER));
  if (unknown) throw new ApiError(0, 'NoAnswer', unknown);
}
const refusedStory = (refusal: unknown): Story => ({
  reason: 'Refused',
  type: 'Warning',
  message: wordsOf(refusal),
});
/** When the next pass comes, should nothing happen before. */
function requeue(o: Operator, key: string, ledger: Ledger, pass: Pass, p: Plan): void {
  const uptime = o.world.uptime();
  // What was refused in this pass is tried again, and a right may be given yet.
  const until = [...ledger.desk.backoff.values()].map((b) => b.untilUptime);
  const waits = [...until, o.blindUntil].map((at) => at - uptime).filter((ms) => ms > 0);
  if (pass.isCut) o.queue.add(key); // Last in the queue: others have their turn.
  if (ledger.expected.length > 0) waits.push(LIMITS.recheckMs);
  o.queue.addAfter(key, Math.min(p.wakeMs, ...waits));
}
async function timed({ world, observer }: Operator, pass: () => Promise<void>): Promise<void> {
  const at = world.uptime();
  let result: 'success' | 'error' = 'error';
  try {
    await pass();
    result = 'success';
  } finally {
    observer?.passed(world.uptime() - at, result);
  }
}

// ── What people see ─────────────────────────────────────────────────────────────────────────────
const statusPatch = ({ meta }: StatefulCluster, status: object): ApiRequest => {
  const { namespace, name, uid, resourceVersion } = meta;
  const path = `${clusterPath(namespace, name)}/status?${FIELDS}`;
  return { ...MERGE, path, body: { metadata: { uid, resourceVersion }, status } };
};
/** Writes the status when it differs, at most once a second, on the version that it was computed
 *  from. */
async function report(o: Operator, pass: Pass, ledger: Ledger, status: Status): Promise<void> {
  const { cluster } = pass;
  const before: Json = { ...cluster.status };
  // Fields that a newer version or a hand wrote stay, and are no difference.
  const differs = Object.entries(status).some(
    ([k, v]) => canonicalJson(v) !== canonicalJson(before[k]),
  );
  if (isTerminating(cluster) || !differs) return;
  const dueMs = ledger.statusAt + LIMITS.statusEveryMs - o.world.uptime();
  if (dueMs > 0) return o.queue.addAfter(keyOf(cluster.meta), dueMs);
  try {
    shown(
      pass,
      'statefulclusters',
      await send(pass, 'statefulclusters', statusPatch(cluster, status)),
    );
  } catch (error) {
    if (error instanceof ApiError && [404, 409].includes(error.code)) await awaitCluster(pass);
    throw error;
  }
  ledger.statusAt = o.world.uptime();
  for (const story of turnsOf(cluster.status.conditions ?? [], status.conditions))
    await recordEvent(o.world, cluster, ledger, story);
}
/** A status that does not land says that the cluster is another by now, or gone, whatever the watch
 *  tells: nothing more is planned for it before the cache shows what is read here. */
async function awaitCluster({ world, cluster: { meta }, expect }: Pass): Promise<void> {
  const path = clusterPath(meta.namespace, meta.name);
  const live = await call(world, { method: 'GET', path }).then(metaOf, (error: unknown) => {
    if (!isGone(error)) throw error;
  });
  // Versions that fall come from a restored etcd: only a new list can be later than they are.
  const isOlder = live && Number(live.resourceVersion) < Number(meta.resourceVersion);
  expect('statefulclusters', live ?? meta, !live ? 'absence' : isOlder ? 'list' : 'version');
}

/** A bug stops no other cluster, and is told where people look. */
async function confess(o: Operator, cluster: StatefulCluster, ledger: Ledger, error: unknown) {
  const { world } = o;
  const message = wordsOf(error).slice(0, LIMITS.messageMax);
  const stack = error instanceof Error ? error.stack : undefined;
  world.log('error', 'bug', { cluster: keyOf(cluster.meta), error: message, stack });
  const before = cluster.status.conditions ?? [];
  const observedGeneration = cluster.meta.generation;
  const words = { status: 'True', reason: 'InternalError', message, observedGeneration } as const;
  const stalled = setCondition(before, { type: 'Stalled', ...words }, world.now());
  const conditions = [...before.filter((c) => c.type !== 'Stalled'), stalled];
  if (canonicalJson(conditions) !== canonicalJson(before))
    await call(world, statusPatch(cluster, { conditions })).catch((failure: unknown) => {
      world.log('warn', 'status not written', { error: wordsOf(failure) });
    });
  const story = { reason: 'InternalError', type: 'Warning', message } as const;
  await recordEvent(world, cluster, ledger, story);
}

/** An Event, or one more count of the same Event within ten minutes. It is news, not work: a
 *  failure is logged, and nothing waits for it for long. */
async function recordEvent(
  world: World,
  cluster: StatefulCluster,
  { told }: Ledger,
  { reason, type, message }: Story,
): Promise<void> {
  const { namespace, name, uid } = cluster.meta;
  const now = world.now();
  const fields = { cluster: `${namespace}/${name}`, message };
  world.log(type === 'Warning' ? 'warn' : 'info', reason, fields);
  // A refusal names another pod each time it is tried again, and is still the same news.
  const key = reason === 'Refused' ? reason : `${reason} ${message}`;
  const same = told.get(key);
  const known = same && now - same.at < LIMITS.earlyEndMs ? same : undefined;
  const chance = digits(Math.floor(world.random() * BASE ** 4), 4);
  const id = known?.name ?? `${name}.${digits(now, 9)}${chance}`;
  const count = (known?.count ?? 0) + 1;
  told.delete(key);
  told.set(key, { name: id, count, at: now });
  for (const [oldest] of told) if (told.size > LIMITS.toldMax) told.delete(oldest);
  const again = { count, lastTimestamp: timeText(now), message: message.slice(0, 1000) };
  const { apiVersion, kind } = ownerOf(cluster);
  const body = {
    metadata: { name: id },
    involvedObject: { apiVersion, kind, name, namespace, uid },
    source: { component: 'statefulcluster' },
    reason,
    type,
    firstTimestamp: timeText(now),
    ...again,
  };
  const path = `/api/v1/namespaces/${namespace}/events`;
  const request: ApiRequest = known
    ? { ...MERGE, path: `${path}/${id}`, body: again }
    : { method: 'POST', path, body };
  await call(world, { ...request, timeoutMs: LIMITS.eventMs }).catch((error: unknown) => {
    world.log('debug', 'Event not written', { error: wordsOf(error) });
  });
}
// ═══ 13 LEADER · effects ═════════════════════════════════════════════════════════════════════════
// Of all processes with one scope, one works at a time: the holder of a Lease. Times are counted on
// the own monotonic clock from what was seen here; nobody's wall clock is compared. A holder stops
// writing 5 s before another may begin; a standby sends requests for Leases only. Not handled: a
// suspended machine stops that clock too; a holder on it finds out at its next renewal.

/** Where the Lease is, and who wants it: a name that no other process has. */
export interface Candidate {
  readonly namespace: string;
  readonly identity: string;
}
/** The scope of one operator: which StatefulClusters it works on. */
export type Share = Pick<Options, 'namespaces' | 'selector'>;
/** A Lease as it was last seen to change. */
interface Sighting {
  readonly share: Share;
  readonly holder: string;
  readonly text: string;
  readonly freeAt: number; // Uptime from which it is no one's, if it does not change again.
  readonly renewed: boolean; // It changed before the eyes of this process: somebody lives.
}
interface Election {
  readonly world: World;
  readonly share: Share;
  readonly path: string; // Of the Leases of the namespace.
  readonly name: string;
  readonly identity: string;
  readonly seen: Map<string, Sighting>; // By name of the Lease.
  held: Raw | undefined; // As this process wrote it last, if the answer came.
  until: number; // Uptime up to which this process leads.
}

/** Equal scopes compete for one Lease; each part of a split has its own, named after it. */
export function leaseName({ namespaces, selector }: Share): string {
  if (namespaces.length === 0 && selector === '') return 'statefulcluster';
  const text = canonicalJson([unique(namespaces).sort(), selector]);
  const hash = createHash('sha256').update(text).digest();
  return `statefulcluster-${digits(hash.readUIntBE(0, 6), 10)}`;
}
/** May one cluster be in both? Selectors are apart only if one key cannot satisfy both. */
export function overlaps(a: Share, b: Share): boolean {
  const all = a.namespaces.length === 0 || b.namespaces.length === 0;
  const apart = termsOf(a.selector).some((x) =>
    termsOf(b.selector).some((y) => excludes(x, y) || excludes(y, x)),
  );
  return !apart && (all || a.namespaces.some((ns) => b.namespaces.includes(ns)));
}
function excludes({ key, operator, values = [] }: SelectorTerm, other: SelectorTerm): boolean {
  if (key !== other.key) return false;
  if (operator === 'Exists') return other.operator === 'DoesNotExist';
  return operator === 'In' && values.every((value) => !termMatches(other, { [key]: value }));
}
/** A selector as kubectl takes it. From what is not understood here, nothing is concluded. */
function termsOf(selector: string): readonly SelectorTerm[] {
  const form = /^(!?)\s*([\w./-]+)\s*(?:(==?|!=|\bin\b|\bnotin\b)\s*\(?([^()]*)\)?)?$/;
  return selector.split(/,(?![^(]*\))/).flatMap((text): SelectorTerm[] => {
    const [, not, key = '', is = '', list = ''] = form.exec(text.trim()) ?? [];
    if (key === '') return [];
    if (is === '') return [{ key, operator: not ? 'DoesNotExist' : 'Exists' }];
    const operator = is === '!=' || is === 'notin' ? 'NotIn' : 'In';
    return [{ key, operator, values: list.split(',').map((value) => value.trim()) }];
  });
}

/** `runOperator` while this process leads. Resolves after `signal`, when the Lease is released;
 *  rejects when leadership is lost, and then the process must end. */
export async function runElected(
  world: World,
  options: Options & { readonly lease: Candidate },
  signal: AbortSignal,
): Promise<void> {
  const { namespaces, selector, lease } = options;
  const share = { namespaces, selector };
  const path = `/apis/coordination.k8s.io/v1${inNamespace(lease.namespace)}/leases`;
  const own = { world, share, path, name: leaseName(share), identity: lease.identity };
  const e: Election = { ...own, seen: new Map(), held: undefined, until: -Infinity };
  await campaign(e, signal);
  if (!leads(e)) return;
  const [stop, over] = [new AbortController(), new AbortController()];
  const keeping = keepLease(e, over.signal);
  const until = AbortSignal.any([signal, stop.signal]);
  try {
    if (!signal.aborted) await Promise.race([runOperator(fenced(e), options, until), keeping]);
  } finally {
    stop.abort();
    over.abort();
    const released = keeping.catch(() => undefined); // Its failure was thrown above.
    await Promise.race([released, world.sleep(LIMITS.releaseMaxMs)]);
  }
}
const leads = (e: Election): boolean => e.world.uptime() < e.until;
/** The World of a leader: no write leaves once another may soon begin. */
const fenced = (e: Election): World => ({
  ...e.world,
  send: async (request) => {
    if (request.method === 'GET' || leads(e)) return e.world.send(request);
    throw new Error(`not sent: the Lease ${e.name} was not renewed in time`);
  },
});

/** Resolves when this process leads, or shall not any more. The Lease is taken and renewed once
 *  before anything else: of two newcomers with overlapping scopes at least one sees the other. */
async function campaign(e: Election, signal: AbortSignal): Promise<void> {
  const { world, name: lease } = e;
  for (let [tries, wins, told] = [0, 0, '']; !signal.aborted; tries++) {
    try {
      const why = await tryLease(e);
      wins = why === '' ? wins + 1 : 0;
      if (wins === 2) return world.log('info', 'leads', { lease });
      if (wins === 0 && why !== told) world.log('info', 'stands by', { lease, why: (told = why) });
    } catch (error) {
      // An overlap is final; a missing right is, too, if it is missing from the start.
      if (!(error instanceof ApiError) || (tries === 0 && isRefusal(error))) throw error;
      world.log('warn', 'the Lease cannot be had', { lease, error: wordsOf(error) });
      wins = 0;
    }
    e.held = undefined;
    const freeInMs = (e.seen.get(lease)?.freeAt ?? 0) - world.uptime();
    const pauseMs = freeInMs > 0 ? Math.min(freeInMs, LIMITS.leaseRetryMs) : LIMITS.leaseRetryMs;
    if (wins === 0) await world.sleep(pauseMs, signal);
  }
}
/** Renews until `over`, then releases. Throws when this process does not lead any more. */
async function keepLease(e: Election, over: AbortSignal): Promise<void> {
  for (;;) {
    const left = e.until - e.world.uptime();
    await e.world.sleep(Math.max(0, Math.min(LIMITS.leaseRetryMs, left)), over);
    if (over.aborted) return release(e);
    const why = leads(e) ? await tryLease(e).catch(wordsOf) : 'it was not renewed in time';
    if (!leads(e)) throw new Error(`lost the Lease ${e.name}: ${why}`);
    if (why) e.world.log('warn', 'the Lease was not renewed', { error: why });
  }
}
/** The next one may begin at once: what was in flight has ended, or ends with this process. */
async function release(e: Election): Promise<void> {
  const found = leads(e) ? (e.held ?? (await look(e))) : undefined;
  e.until = -Infinity;
  if (found?.['spec'].holderIdentity !== e.identity) return;
  const now = microTime(e.world);
  const free = { holderIdentity: '', leaseDurationSeconds: 1, acquireTime: now, renewTime: now };
  await write(e, found, { ...found['spec'], ...free });
}

/** Takes or renews the Lease; says why not, if somebody else may work on this scope. */
async function tryLease(e: Election): Promise<string> {
  const at = e.world.uptime(); // Whoever sees this renewal sees it later.
  const known = e.held;
  const found = known ?? (await look(e));
  e.held = undefined; // If the answer does not come, it is read again.
  const why = rivalOf(e);
  if (why) {
    e.until = -Infinity;
    return why;
  }
  const spec: Raw = found?.['spec'] ?? { leaseTransitions: -1 };
  const renewTime = microTime(e.world);
  const { leaseTransitions = 0 } = spec;
  const turn = { acquireTime: renewTime, leaseTransitions: leaseTransitions + 1 };
  const leaseDurationSeconds = LIMITS.leaseMs / 1000;
  const own = { holderIdentity: e.identity, leaseDurationSeconds, renewTime };
  const isNews = spec['holderIdentity'] !== e.identity;
  try {
    e.held = await write(e, found, { ...spec, ...(isNews && turn), ...own });
  } catch (error) {
    // Somebody changed or deleted what was known: it is read at once.
    if (known && error instanceof ApiError && [404, 409].includes(error.code)) return tryLease(e);
    throw error;
  }
  e.until = at + LIMITS.renewMaxMs;
  return '';
}
/** Reads the Leases of all operators in the namespace, and notes which of them changed. One that
 *  was deleted by hand stays noted, for its holder will make it again. */
async function look(e: Election): Promise<Raw | undefined> {
  const path = withQuery(e.path, { labelSelector: selectorText({ matchLabels: LEASE_LABELS }) });
  const { items = [] } = await ask(e, { method: 'GET', path });
  for (const { metadata, spec = {} } of items as readonly Raw[]) {
    const { holderIdentity: holder = '', leaseDurationSeconds: seconds = 0 } = spec;
    const { [MARK.namespaces]: list = '', [MARK.selector]: selector = '' } = dictOf(
      metadata.annotations,
    );
    const text = JSON.stringify(spec);
    const before = e.seen.get(metadata.name);
    if (before?.text === text) continue;
    const share = { namespaces: list.split(',').filter(Boolean), selector };
    const freeAt = e.world.uptime() + 1000 * seconds;
    const renewed = before !== undefined;
    e.seen.set(metadata.name, { share, holder, text, freeAt, renewed });
  }
  return (items as readonly Raw[]).find(({ metadata }) => metadata.name === e.name);
}
/** Who else works, or may work, on this scope; '' if nobody. Throws beside an overlapping scope. */
function rivalOf(e: Election): string {
  for (const [name, { share, holder, freeAt, renewed }] of e.seen) {
    if (holder === e.identity || holder === '' || e.world.uptime() >= freeAt) continue;
    if (name === e.name) return `${holder} holds it`;
    if (!overlaps(e.share, share)) continue;
    const why = `${holder} works on an overlapping scope: see the Lease ${name}`;
    if (renewed) throw new Error(why);
    return `perhaps ${why}`;
  }
  return '';
}

const LEASE_LABELS = { 'app.kubernetes.io/name': 'statefulcluster' };
const microTime = (world: World): string =>
  new Date(world.now()).toISOString().replace('Z', '000Z');
/** Lands only on the version that was read: of two candidates one gets a conflict. */
function write(e: Election, found: Raw | undefined, spec: Raw): Promise<Raw> {
  const { metadata = {} } = found ?? {};
  const { namespaces, selector } = e.share;
  const scope = { [MARK.namespaces]: namespaces.join(), [MARK.selector]: selector };
  const labels = { ...metadata.labels, ...LEASE_LABELS };
  const annotations = { ...metadata.annotations, ...scope };
  const type = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' };
  const body = {
    ...found,
    ...type,
    metadata: { ...metadata, name: e.name, labels, annotations },
    spec,
  };
  return found
    ? ask(e, { method: 'PUT', path: `${e.path}/${e.name}`, body })
    : ask(e, { method: 'POST', path: e.path, body });
}
/** A holder asks no longer than it leads; half of that leaves time for a second try. */
function ask(e: Election, request: ApiRequest): Promise<Raw> {
  const left = leads(e) ? e.until - e.world.uptime() : Infinity;
  return call(e.world, { ...request, timeoutMs: Math.ceil(Math.min(LIMITS.renewMaxMs / 2, left)) });
}

// ═══ 14 PROBES · effects ═════════════════════════════════════════════════════════════════════════
// /healthz, /readyz and /metrics over plain HTTP. They tell what passed through World and what
// CONTROLLER said; nothing is read from the API server for them, and no decision rests on them. No
// label carries the name of a cluster or a member: their number has no limit.

/** Every metric: its type and what it says. */
export const METRICS = {
  statefulcluster_build_info: ['gauge', 'Always 1; its label is the version.'],
  statefulcluster_leader: ['gauge', '1 while this process works, 0 while it stands by.'],
  statefulcluster_reconciles_total: ['counter', 'Passes over one cluster, by result.'],
  statefulcluster_reconcile_duration_seconds: ['histogram', 'Duration of a pass.'],
  statefulcluster_queue_depth: ['gauge', 'Clusters that wait for a pass.'],
  statefulcluster_members: ['gauge', 'Live members of all clusters, by health.'],
  statefulcluster_replacements_total: ['counter', 'Members that were replaced, by Reason.'],
  statefulcluster_errors_total: ['counter', 'Errors, by the words of the log.'],
  statefulcluster_api_requests_total: ['counter', 'API requests, by verb and status code.'],
  statefulcluster_api_request_duration_seconds: ['histogram', 'Duration of requests, by verb.'],
  statefulcluster_watch_restarts_total: ['counter', 'Watches that were opened again.'],
  process_cpu_seconds_total: ['counter', 'User and system CPU time.'],
  process_resident_memory_bytes: ['gauge', 'Resident memory.'],
  process_start_time_seconds: ['gauge', 'Start of the process, in seconds since 1970.'],
  nodejs_heap_size_used_bytes: ['gauge', 'Used heap of JavaScript.'],
  nodejs_eventloop_lag_seconds: ['gauge', 'How late the last tick of a second came.'],
} as const;
type Metric = keyof typeof METRICS;
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, Infinity];

/** What the pages are made of. */
export interface Vitals {
  readonly world: World;
  readonly series: Readonly<Record<Metric, Map<string, number>>>; // By suffix and labels.
  readonly watches: Map<string, { newsAt: number; signAt: number }>; // By path; uptimes.
  readonly healths: Map<string, readonly State[]>; // Of live members, by cluster.
  phase: 'standby' | 'syncing' | 'synced';
  depth: () => number;
  lagMs: number;
}
/** Series whose labels are known begin at 0, so that a rate sees their first step. */
export function newVitals(world: World): Vitals {
  const series = Object.fromEntries(Object.keys(METRICS).map((name) => [name, new Map()]));
  const maps = { series: series as Vitals['series'], watches: new Map(), healths: new Map() };
  const v: Vitals = { world, ...maps, phase: 'standby', depth: () => 0, lagMs: 0 };
  for (const reason of Object.keys(ENDS))
    count(v, 'statefulcluster_replacements_total', { reason }, 0);
  for (const result of ['success', 'error'])
    count(v, 'statefulcluster_reconciles_total', { result }, 0);
  count(v, 'statefulcluster_watch_restarts_total', {}, 0);
  return v;
}
/** Values are words of this program: what JSON escapes beyond the format does not occur in them. */
function labelsText(labels: Dict): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return pairs.length > 0 ? `{${pairs.join()}}` : '';
}
function count(v: Vitals, metric: Metric, labels: Dict, by = 1, suffix = ''): void {
  const key = suffix + labelsText(labels);
  v.series[metric].set(key, (v.series[metric].get(key) ?? 0) + by);
}
function time(v: Vitals, metric: Metric, labels: Dict, ms: number): void {
  for (const edge of BUCKETS) {
    const le = edge === Infinity ? '+Inf' : String(edge);
    count(v, metric, { ...labels, le }, ms <= 1000 * edge ? 1 : 0, '_bucket');
  }
  count(v, metric, labels, ms / 1000, '_sum');
  count(v, metric, labels, 1, '_count');
}

/** The same World, and what passes through it is counted. */
export function measured(v: Vitals): World {
  const { world } = v;
  const tell = (verb: string) => (answer?: ApiResponse) => {
    const code = String(answer?.status ?? 'none'); // none: no answer came.
    count(v, 'statefulcluster_api_requests_total', { verb, code });
  };
  return {
    ...world,
    async send(request) {
      const verb = request.method;
      const at = world.uptime();
      const watch = v.watches.get(request.path.split('?')[0] ?? '');
      if (watch && verb === 'GET') watch.signAt = at; // A list, before it is watched again.
      const answer = world.send(request);
      await answer.then(tell(verb), () => tell(verb)());
      time(v, 'statefulcluster_api_request_duration_seconds', { verb }, world.uptime() - at);
      return answer;
    },
    async watch(path, on, signal) {
      const [bare = ''] = path.split('?');
      const uptime = world.uptime();
      const known = v.watches.get(bare);
      if (known) count(v, 'statefulcluster_watch_restarts_total', {});
      const watch = { newsAt: known?.newsAt ?? uptime, signAt: uptime };
      v.watches.set(bare, watch);
      const hear = (event: WatchEvent): void => {
        watch.newsAt = watch.signAt = world.uptime();
        on(event);
      };
      const answer = world.watch(path, hear, signal);
      await answer.then(tell('WATCH'), () => tell('WATCH')());
      return answer;
    },
    log(level, message, fields) {
      if (fields?.['error']) count(v, 'statefulcluster_errors_total', { log: message });
      world.log(level, message, fields);
    },
  };
}
/** Takes in what CONTROLLER tells. */
export const observerOf = (v: Vitals): Observer => ({
  leads: () => void (v.phase = 'syncing'),
  synced: (depth) => void Object.assign(v, { phase: 'synced', depth }),
  passed(ms, result) {
    time(v, 'statefulcluster_reconcile_duration_seconds', {}, ms);
    count(v, 'statefulcluster_reconciles_total', { result });
  },
  saw(cluster, members) {
    v.healths.set(
      cluster,
      members.filter(isLive).map((m) => m.state),
    );
    if (members.length === 0) v.healths.delete(cluster);
  },
  replaced: (reason) => count(v, 'statefulcluster_replacements_total', { reason }),
});

/** The text format 0.0.4 of Prometheus, with the process's own figures beside the counted ones. */
export function metricsText(v: Vitals): string {
  const set = (metric: Metric, value: number, labels: Dict = {}): void =>
    void v.series[metric].set(labelsText(labels), value);
  const { rss, heapUsed } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  set('statefulcluster_build_info', 1, { version: VERSION });
  set('statefulcluster_leader', v.phase === 'standby' ? 0 : 1);
  set('statefulcluster_queue_depth', v.depth());
  set('process_cpu_seconds_total', (user + system) / 1e6);
  set('process_resident_memory_bytes', rss);
  set('process_start_time_seconds', performance.timeOrigin / 1000);
  set('nodejs_heap_size_used_bytes', heapUsed);
  set('nodejs_eventloop_lag_seconds', v.lagMs / 1000);
  const all = [...v.healths.values()].flat();
  for (const health of STATES)
    set('statefulcluster_members', all.filter((h) => h === health).length, { health });
  const families = Object.entries(METRICS).map(([name, [type, help]]) => {
    const lines = [...v.series[name as Metric]].map(([rest, n]) => `${name}${rest} ${n}\n`);
    return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
  });
  return families.join('');
}

/** Why this process should be started anew, or ''. A server that is away is no reason: a watch that
 *  cannot be opened is opened again, which is a sign too. */
function illness(v: Vitals): string {
  if (v.lagMs > LIMITS.lagMaxMs) return `the event loop was blocked for ${v.lagMs} ms`;
  const since = v.world.uptime() - LIMITS.silenceMaxMs;
  const [path] = [...v.watches].find(([, { signAt }]) => signAt < since) ?? [];
  return path ? `no sign of the watch ${path} for ${LIMITS.silenceMaxMs / 1000} s` : '';
}
function readiness(v: Vitals): readonly [status: number, text: string] {
  if (v.phase === 'standby') return [200, 'standby\n'];
  const synced = v.phase === 'synced';
  const ages = [...v.watches].map(([path, { newsAt }]) => {
    const seconds = Math.floor((v.world.uptime() - newsAt) / 1000);
    return `${path}: last event or bookmark ${seconds} s ago\n`;
  });
  const head = synced ? 'leader\n' : 'leader, the caches are not synced\n';
  return [synced ? 200 : 503, head + ages.join('')];
}
/** Status and text of one page. */
export function pageOf(v: Vitals, path: string): readonly [status: number, text: string] {
  if (path === '/metrics') return [200, metricsText(v)];
  if (path === '/readyz') return readiness(v);
  if (path !== '/healthz') return [404, 'there are /healthz, /readyz and /metrics\n'];
  const why = illness(v);
  return why ? [500, `${why}\n`] : [200, 'ok\n'];
}

/** Where to listen; undefined for nowhere. */
export function probeAddress(text: string): net.ListenOptions | undefined {
  if (text === '' || text === '0') return undefined;
  const form = /^(?:\[([\da-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/;
  const [, six, name, port = ''] = form.exec(text) ?? [];
  if (port === '' || Number(port) > 65_535)
    throw new UsageError('--probe-addr must be :PORT or HOST:PORT, or 0 for none');
  const host = six || name;
  return { port: Number(port), ...(host && { host }) };
}
/** Serves the pages until aborted. */
async function serveProbes(
  v: Vitals,
  address: net.ListenOptions,
  signal: AbortSignal,
): Promise<void> {
  const http = process.getBuiltinModule('node:http'); // Not needed by `version`.
  const server = http.createServer((request, response) => {
    const [status, body] = pageOf(v, request.url?.split('?')[0] ?? '');
    const type = 'text/plain; version=0.0.4; charset=utf-8';
    response.writeHead(status, { 'content-type': type }).end(body);
  });
  server.maxConnections = LIMITS.probersMax;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`--probe-addr: ${error.message}`)));
    server.listen({ ...address, signal }, resolve);
  });
  v.world.log('info', 'probes', { ...(server.address() as net.AddressInfo) });
  void watchLag(v, signal);
}
async function watchLag(v: Vitals, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const at = v.world.uptime();
    await v.world.sleep(LIMITS.lagEveryMs, signal);
    v.lagMs = Math.max(0, Math.round(v.world.uptime() - at - LIMITS.lagEveryMs));
  }
}

// ═══ 15 CLI · effects ════════════════════════════════════════════════════════════════════════════
// Words in, words out: the only room that knows the terminal. Wrong use is one line and exit code
// 2, what cannot be done is one line and exit code 1; a stack trace is a bug.

const VERSION = process.env['STATEFULCLUSTER_VERSION'] ?? '0.0.0-dev'; // Set by build.mjs.
/** kubectl finds its plugins by the names of their files. */
const PROGRAM = [process.argv0, process.argv[1]].some((file) =>
  /(^|\/)kubectl-statefulcluster[^/]*$/.test(file ?? ''),
)
  ? 'kubectl statefulcluster'
  : 'statefulcluster';
const RUN_HELP = `  --kubeconfig FILE   default: $KUBECONFIG, ~/.kube/config, or the pod's account
  --context NAME      of the kubeconfig; default: its current one
  -n, --namespace NS  may be given several times; default: those that
                      $WATCH_NAMESPACE lists (empty: all), else the context's
  -A, --all-namespaces
  --selector LABELS   only StatefulClusters with these labels
  --workers N         clusters worked on at a time (default 4)
  --leader-elect=false
                      work without a Lease: only where no other operator runs
  --leader-elect-namespace NS
                      of the Lease; default: the pod's, else the first of -n
  --probe-addr ADDR   [HOST]:PORT of probes and metrics (:8080; 0: none)
  --log json|pretty   default: pretty on a terminal, else json`;
/** Wrong use of the command line: one line, exit code 2. */
class UsageError extends Error {}

const RUN_FLAGS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  namespace: { type: 'string', short: 'n', multiple: true },
  'all-namespaces': { type: 'boolean', short: 'A' },
  selector: { type: 'string' },
  workers: { type: 'string' },
  'leader-elect': { type: 'boolean', default: true },
  'leader-elect-namespace': { type: 'string' },
  'probe-addr': { type: 'string', default: ':8080' },
  log: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

const FORMS: Dict = {
  '--leader-elect=false': '--no-leader-elect',
  '--leader-elect=true': '--leader-elect',
};
function flagsOf(args: readonly string[]) {
  // As Go's flags take it, and so as other operators do.
  const given = args.map((arg) => FORMS[arg] ?? arg);
  const form = { options: RUN_FLAGS, allowPositionals: false, allowNegative: true };
  return parsed({ args: given, ...form }).values;
}
/** parseArgs, whose complaints are wrong use. */
function parsed<T extends ParseArgsConfig>(config: T) {
  try {
    return parseArgs(config);
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

/** The error, in words for what the person at the terminal can mend. */
function explained(error: unknown, path: string): unknown {
  const code = error instanceof ApiError ? error.code : -1;
  const words = wordsOf(error);
  if (code === 0) return new Error(`the API server cannot be reached: ${words}`);
  const isKind = path.startsWith('/apis/enge.me/') && !/".*" not found$/.test(words);
  if (code !== 404 || !isKind) return error;
  const cure = 'kubectl apply -f deploy.yaml';
  return new Error(`the API server does not know StatefulCluster: ${cure}`);
}
const api = (world: World, request: ApiRequest): Promise<Raw> =>
  call(world, request).catch((error: unknown) => Promise.reject(explained(error, request.path)));
/** One look at each kind that is needed, so that a wrong server, a missing CRD or a missing right
 *  is one clear line at the start instead of a retry for ever. In a pod the server is the right
 *  one: if it is away, it is waited for. */
async function preflight(world: World, { namespaces, selector }: Options, inPod: boolean) {
  for (const ns of namespaces.length > 0 ? namespaces : ['']) {
    const clusters = withQuery(clusterPath(ns), { labelSelector: selector });
    const kinds = ([PODS, CLAIMS, REVISIONS] as const).map((kind) => pathOf(kind, ns));
    for (const path of [clusters, ...kinds]) await lookAt(path);
  }
  async function lookAt(path: string): Promise<unknown> {
    const request = { method: 'GET', path: withQuery(path, { limit: 1 }) } as const;
    return call(world, request).catch(async (error: unknown) => {
      if (!inPod || isRefusal(error)) throw explained(error, path);
      world.log('warn', 'the API server is waited for', { error: wordsOf(error) });
      await world.sleep(LIMITS.leaseRetryMs);
      return lookAt(path);
    });
  }
}

/** Which clusters, and where the Lease is: with the pod, or with what is watched from outside. */
function scopeOf(flags: ReturnType<typeof flagsOf>, config: KubeConfig) {
  const context = config.getCurrentContext();
  const own = config.getContextObject(context)?.namespace ?? 'default';
  const watched = process.env['WATCH_NAMESPACE'];
  const usual = watched === undefined ? [own] : watched.split(',').filter((ns) => ns !== '');
  const namespaces = flags['all-namespaces'] ? [] : unique(flags.namespace ?? usual);
  const inPod = context === 'inClusterContext'; // So the library calls it.
  const beside = inPod ? own : (namespaces[0] ?? own);
  return { namespaces, inPod, leaseIn: flags['leader-elect-namespace'] ?? beside };
}

async function run(args: readonly string[]): Promise<void> {
  const flags = flagsOf(args);
  if (flags.help) return help({ names: ['run'], flags: {} });
  const format = flags.log ?? (process.stdout.isTTY ? 'pretty' : 'json');
  if (format !== 'json' && format !== 'pretty')
    throw new UsageError('--log must be json or pretty');
  const workers = Number(flags.workers ?? 4);
  if (!Number.isInteger(workers) || workers < 1)
    throw new UsageError('--workers must be a number above 0');
  if (flags['all-namespaces'] && flags.namespace)
    throw new UsageError('-A and -n exclude each other');
  const probes = probeAddress(flags['probe-addr']);
  const load = (): Promise<KubeConfig> => loadConfig(flags.kubeconfig, flags.context);
  const config = await load();
  const { namespaces, inPod, leaseIn } = scopeOf(flags, config);
  const log = logger(format);
  const vitals = newVitals(realWorld(config, log, load));
  const world = measured(vitals);
  const selector = flags.selector ?? '';
  const options = { namespaces, workers, selector, observer: observerOf(vitals) };
  // Else what a list leaves behind stays resident: 195 MB with 10,000 pods, instead of 124.
  process.getBuiltinModule('node:v8').setFlagsFromString('--semi-space-growth-factor=1');
  const stop = new AbortController();
  if (probes) await serveProbes(vitals, probes, stop.signal);
  await preflight(world, options, inPod);
  process.stdout.on('error', () => stop.abort()); // Whoever read the log is gone.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());
  const server = config.getCurrentCluster()?.server;
  log('info', 'starts', { version: VERSION, server, namespaces: namespaces.join(',') || 'all' });
  const identity = `${hostname()}_${digits(Math.floor(world.random() * BASE ** 10), 10)}`;
  const lease = { namespace: leaseIn, identity };
  await (flags['leader-elect']
    ? runElected(world, { ...options, lease }, stop.signal)
    : runOperator(world, options, stop.signal));
  log('info', 'stopped');
}

// ── At the terminal ─────────────────────────────────────────────────────────────────────────────
/** What the user asked for: the words after the command, and its flags ('true' for bare ones). */
interface Asked {
  readonly names: readonly string[];
  readonly flags: Readonly<Record<string, string | undefined>>;
}
const readerLeft = (): void => process.exit(0);
function say(text: string): void {
  process.stdout.off('error', readerLeft).on('error', readerLeft);
  process.stdout.write(`${text}\n`);
}
/** What the API server warns of, and watches that broke; the rest is the log of an operator. */
const warn: World['log'] = (level, message, { warning, error } = {}) => {
  if (level === 'warn') console.error(`${message}: ${String(warning ?? error)}`);
};

/** The same with the place where it is answered, and its first word. */
interface There extends Asked {
  readonly world: World;
  readonly ns: string;
  readonly name: string;
}
const there =
  (run: (at: There) => Promise<void>) =>
  async ({ names, flags }: Asked): Promise<void> => {
    const load = (): Promise<KubeConfig> => loadConfig(flags['kubeconfig'], flags['context']);
    const config = await load();
    const own = config.getContextObject(config.getCurrentContext())?.namespace ?? 'default';
    const world = realWorld(config, warn, load);
    await run({ names, flags, world, ns: flags['namespace'] ?? own, name: names[0] ?? '' });
  };
const getCluster = ({ world, ns, name }: There): Promise<Raw> =>
  api(world, { method: 'GET', path: clusterPath(ns, name) });
const BY = '?fieldManager=statefulcluster-cli';
/** A merge patch that only lands on the very object that was looked at. */
function merge(world: World, path: string, { uid }: Meta, change: Raw): Promise<Raw> {
  const body = { ...change, metadata: { ...change['metadata'], uid } };
  return api(world, { ...MERGE, path: path + BY, body });
}
async function itemsOf(world: World, path: string, wanted: LabelSelector) {
  const labelSelector = selectorText(wanted);
  const list = await api(world, { method: 'GET', path: withQuery(path, { labelSelector }) });
  return (list['items'] ?? []) as readonly Raw[];
}

/** Hands the clusters of a path to `see` at once, after each change and every `everyMs`, until it
 *  has seen enough. False: `limitMs` was over before. */
async function keepSeeing(
  world: World,
  path: string,
  see: (raws: readonly Raw[]) => boolean,
  { everyMs = Infinity, limitMs = Infinity } = {},
): Promise<boolean> {
  const stop = new AbortController();
  const { signal } = stop;
  let bell = Promise.withResolvers<void>();
  const project = (raw: Raw) => ({ meta: metaOf(raw), raw });
  const on = (): void => bell.resolve();
  const feed = follow({ world, path, project, on, signal, optional: false });
  const limit = world.sleep(limitMs, signal).then(() => stop.abort());
  await Promise.race([feed.ready.promise, limit]);
  for (; !signal.aborted; await Promise.race([bell.promise, limit, world.sleep(everyMs, signal)])) {
    bell = Promise.withResolvers();
    if (see([...feed.items.values()].map(({ raw }) => raw))) return true;
  }
  return false;
}

const columns = (): number => process.stdout.columns ?? Infinity;
const widthOf = (text: string): number => [...stripVTControlCharacters(text)].length;
/** Columns as wide as their widest cell; the last one goes on below itself. */
function tableOf(rows: readonly (readonly string[])[]): string {
  const count = (rows[0]?.length ?? 1) - 1;
  const widths = Array.from({ length: count }, (_, i) =>
    Math.max(...rows.map((row) => widthOf(row[i] ?? ''))),
  );
  const indent = ' '.repeat(widths.reduce((sum, width) => sum + width + 2, 0));
  const lines = rows.map((row) => {
    const cells = widths.map((width, i) => row[i] + ' '.repeat(width - widthOf(row[i] ?? '') + 2));
    return (cells.join('') + folded(row[count] ?? '', indent).slice(indent.length)).trimEnd();
  });
  return lines.join('\n');
}
const titled = (titles: string, rows: readonly (readonly string[])[]): string =>
  rows.length > 0 ? tableOf([titles.split('  ').map((title) => gray(title)), ...rows]) : '';
/** Text within the terminal, every line of it indented. */
function folded(text: string, indent = '  '): string {
  const lines = [indent];
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? '';
    const fits = line === indent || widthOf(line) + widthOf(word) < columns();
    if (fits) lines.splice(-1, 1, line === indent ? line + word : `${line} ${word}`);
    else lines.push(indent + word);
  }
  return lines.join('\n');
}
/** Parts with a blank line between them, without the empty ones. */
const paragraphs = (...parts: readonly string[]): string => parts.filter(Boolean).join('\n\n');
/** In the largest unit of which there are two. */
function ageText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const found = Object.entries({ d: 86_400, h: 3600, m: 60 }).find(([, s]) => seconds >= 2 * s);
  return found ? `${Math.floor(seconds / found[1])}${found[0]}` : `${seconds}s`;
}
const sinceText = (at: string | undefined, now: number): string =>
  at && Date.parse(at) <= now ? ageText(now - Date.parse(at)) : '';
/** Draws over the last picture, from the top, as far as the terminal reaches. */
function redraw(text: string): void {
  let left = process.stdout.rows - 1;
  const rows = (line: string): number => Math.max(1, Math.ceil(widthOf(line) / columns()));
  const lines = text.split('\n').filter((line) => (left -= rows(line)) >= 0);
  const picture = lines.map((line) => `${line}\x1b[K\n`).join('');
  process.stdout.write(`\x1b[?2026h\x1b[H${picture}\x1b[J\x1b[?2026l`);
}
async function yamlOf(raw: Raw): Promise<string> {
  const { dumpYaml } = await import('@kubernetes/client-node');
  return dumpYaml(raw).trimEnd();
}

// ── status ──────────────────────────────────────────────────────────────────────────────────────
const { bold, gray, red, yellow, green, cyan, magenta } = kleur;
const LOOKS: Readonly<Record<string, readonly [glyph: string, paint: (text: string) => string]>> = {
  ...{ Available: ['●', green], Ready: ['◕', green], Updating: ['↻', cyan] },
  ...{ Returning: ['↻', cyan], Recreating: ['↻', cyan], Suspended: ['‖', gray] },
  ...{ Starting: ['◐', yellow], Pending: ['○', yellow] },
  ...{ Unready: ['▲', red], Lost: ['×', red], Stalled: ['×', red], Withheld: ['▲', magenta] },
  ...{ ReplacementWithheld: ['▲', magenta], Trouble: ['▲', yellow] },
  ...{ Terminating: ['◌', gray], Retired: ['▫', gray] },
};
function painted(health: string, also = ` ${health}`): string {
  const [glyph, paint] = LOOKS[health] ?? ['·', gray];
  return paint(glyph + also);
}
const trueIn = ({ status }: StatefulCluster, type: string): Condition | undefined =>
  status.conditions?.find((c) => c.type === type && c.status === 'True');
const isObserved = ({ meta, status }: StatefulCluster): boolean =>
  status.observedGeneration === meta.generation;
/** One word for a whole cluster: what needs a person comes first. */
function stateWord(c: StatefulCluster): string {
  const { spec, status } = c;
  if (isTerminating(c)) return 'Terminating';
  if (trueIn(c, 'ReplacementWithheld')) return 'Withheld';
  if (trueIn(c, 'Stalled')) return 'Stalled';
  if (spec.suspend) return 'Suspended';
  if (!isObserved(c)) return 'Pending';
  if ((status.updatedReplicas ?? 0) < (status.replicas ?? 0)) return 'Updating';
  return trueIn(c, 'Ready') ? 'Available' : 'Starting';
}

/** The table of clusters. */
function listText(raws: readonly Raw[], ns: string, now: number): string {
  if (raws.length === 0) return `No StatefulClusters${ns && ` in namespace ${ns}`}.`;
  const all = raws.map(clusterOf).sort((a, b) => (keyOf(a.meta) < keyOf(b.meta) ? -1 : 1));
  const rows = all.map((c) => {
    const { readyReplicas, updatedReplicas, availableReplicas, replacements } = c.status;
    const counts = [readyReplicas, updatedReplicas, availableReplicas, replacements];
    const live = `${c.status.replicas ?? 0}/${c.spec.replicas}`;
    const numbers = [...counts, c.status.retiredClaims].map((n) => String(n ?? 0));
    const place = ns ? [] : [c.meta.namespace];
    const own = [...place, c.meta.name, painted(stateWord(c)), live, ...numbers];
    return [...own, ageText(now - c.meta.createdMs)];
  });
  const titles = 'NAME  STATE  LIVE  READY  UP-TO-DATE  AVAILABLE  REPLACED  RETIRED-CLAIMS  AGE';
  return titled(ns ? titles : `NAMESPACE  ${titles}`, rows);
}

function headText(c: StatefulCluster, now: number): string {
  const { meta, spec, status } = c;
  const { currentRevision: from, updateRevision: to } = status;
  const facts = [
    `${status.availableReplicas ?? 0} of ${spec.replicas} members are available`,
    `${status.replacements ?? 0} replaced so far`,
    `${ageText(now - meta.createdMs)} old`,
  ];
  const progress = status.conditions?.find(({ type }) => type === 'Progressing');
  const notes = [
    isTerminating(c) && 'It is being deleted.',
    meta.annotations[MARK.paused] === 'true' && `${MARK.paused}=true: only its status is kept.`,
    !isObserved(c) && 'The operator has not seen its spec yet.',
    from !== to && `Revision ${from} → ${to}`,
    progress && progress.message.replace(/^\d+ of \d+ members are available(; )?/, ''),
  ].flatMap((note) => (note ? [folded(note)] : []));
  const title = `${painted(stateWord(c), '')} ${bold(meta.name)} ${gray(`in ${meta.namespace}`)}`;
  return [`${title}  ${facts.join(' · ')}`, ...notes].join('\n');
}

const CALM = ['Available', 'Progressing', 'Ready', 'Reconciling']; // True is no trouble.
/** Conditions that a person must know of, the gravest first, in the words they carry. */
function troubleText(c: StatefulCluster, now: number): string {
  const all = (c.status.conditions ?? []).map(({ type }) => type);
  const types = unique(['ReplacementWithheld', 'Stalled', ...all]);
  const texts = types.map((type) => {
    const trouble = CALM.includes(type) ? undefined : trueIn(c, type);
    if (!trouble) return '';
    const about = gray(`${trouble.reason}, for ${sinceText(trouble.lastTransitionTime, now)}`);
    const title = painted(type in LOOKS ? type : 'Trouble', ` ${type}`);
    return `${title} ${about}\n${folded(trouble.message)}`;
  });
  return paragraphs(...texts);
}

/** Of the claims of one identity, the names of their templates. */
const claimsText = (claims: readonly string[], name: string, identity: string): string =>
  claims.map((claim) => claim.replace(`-${name}-${identity}`, '')).join(',') || '-';
function membersText({ meta, status }: StatefulCluster, now: number): string {
  const { members = [], retired = [], replicas = 0, updateRevision } = status;
  const withheld = members.filter((m) => m.health === 'Withheld');
  const rows = unique([...withheld, ...members]).map((m) => {
    const age = birthSecond(m.identity) < 0 ? '-' : ageText(now - birthMs(m.identity));
    const outdated = m.revision !== '' && m.revision !== updateRevision;
    const old = retired.find((r) => r.replacedBy === m.identity);
    const since = sinceText(m.since, now);
    const lineage = old && `replaced ${old.identity}`;
    const revision = outdated ? yellow(`${m.revision} outdated`) : m.revision || '-';
    const claims = claimsText(m.claims, meta.name, m.identity);
    const reason = [m.reason, m.reason && since && `for ${since}`].filter(Boolean).join(' ');
    const why = [reason, lineage].filter(Boolean).join('; ');
    return [painted(m.health), bold(m.identity), age, m.node || '-', revision, claims, why];
  });
  const more = replicas > members.length ? `\n… and ${replicas - members.length} more` : '';
  return titled('HEALTH  IDENTITY  AGE  NODE  REVISION  CLAIMS  WHY', rows) + more;
}
/** Identities that are over, and how to free or bring back what is left of them. */
function retiredText({ meta, status }: StatefulCluster, now: number): string {
  const { retired = [], retiredClaims = 0 } = status;
  const rows = retired.map((r) => {
    const claims = claimsText(r.claims, meta.name, r.identity);
    const over = [painted('Retired'), r.identity, sinceText(r.at, now), r.reason];
    return [...over, r.replacedBy || '-', claims];
  });
  const table = titled('OVER  IDENTITY  AGO  REASON  REPLACED-BY  CLAIMS-KEPT', rows);
  if (retiredClaims === 0) return table;
  const kept = retired.find((r) => r.claims.length > 0)?.identity ?? 'IDENTITY';
  const labels = `${MARK.cluster}=${meta.name},${MARK.retired}=true`;
  const hints = [
    gray(`Retired claims with their data: ${retiredClaims}. To delete them for ever:`),
    `  kubectl delete pvc -n ${meta.namespace} -l ${labels}`,
    gray('To bring an identity back with its data:'),
    `  ${PROGRAM} restore -n ${meta.namespace} ${meta.name} ${kept}`,
  ];
  return paragraphs(table, hints.join('\n'));
}
function pageText(raw: Raw, now: number): string {
  const c = clusterOf(raw);
  const tables = [membersText(c, now), retiredText(c, now)];
  return paragraphs(headText(c, now), troubleText(c, now), ...tables);
}

async function status({ world, ns: own, name, flags }: There): Promise<void> {
  const { output, watch, 'all-namespaces': all } = flags;
  if (output !== undefined && output !== 'json' && output !== 'yaml')
    throw new UsageError('--output must be json or yaml');
  if (output && watch) throw new UsageError('--watch and --output exclude each other');
  if (name && all) throw new UsageError('NAME and -A exclude each other');
  const ns = all ? '' : own;
  const first = await api(world, { method: 'GET', path: clusterPath(ns, name) });
  const json = JSON.stringify(first, (key, v) => (key === 'managedFields' ? undefined : v), 2);
  if (output) return say(output === 'json' ? json : await yamlOf(JSON.parse(json)));
  const textOf = (raws: readonly Raw[]): string => {
    if (!name) return listText(raws, ns, world.now());
    return raws[0] ? pageText(raws[0], world.now()) : deletedText(name);
  };
  if (!watch) return say(textOf(name ? [first] : (first['items'] ?? [])));
  const draws = process.stdout.isTTY && kleur.enabled;
  if (draws) say('\n'.repeat(process.stdout.rows)); // What was there stays above.
  const see = (raws: readonly Raw[]): boolean => {
    if (draws) redraw(textOf(raws));
    else say(`${textOf(raws)}\n`);
    return name !== '' && raws.length === 0;
  };
  // The watch brings the news; on a terminal the ages are drawn anew every second.
  await keepSeeing(world, oneOrAll(ns, name), see, draws ? { everyMs: 1000 } : {});
}
const oneOrAll = (ns: string, name: string): string =>
  withQuery(clusterPath(ns), { fieldSelector: name && `metadata.name=${name}` });
const deletedText = (name: string): string => `${FULL} "${name}" was deleted`;

// ── plan ────────────────────────────────────────────────────────────────────────────────────────
/** The operator's own eyes and decision, on a World that cannot write: dry-runs are not sent, and
 *  taken to succeed (`untried`). What speaks against a member is taken to have been watched for a
 *  minute, as by an operator that runs; what only that one remembers (refusals, earlier restarts) is
 *  not known here. */
async function decideOnly(real: World, ns: string, name: string) {
  const { signal } = new AbortController();
  let untried = false;
  const world: World = {
    ...real,
    async send(request) {
      if (request.method === 'GET') return real.send(request);
      assert(/[?&]dryRun=All(&|$)/.test(request.path), 'plan sends reads only');
      untried = true;
      return { status: 409, headers: {}, body: { reason: 'AlreadyExists' } };
    },
  };
  const options = { namespaces: [ns], selector: '', workers: 1 };
  const o = newOperator(world, options, signal); // Its queue is never started.
  const feeds = startFeeds(o, options);
  await Promise.all(feeds.map((feed) => feed.ready.promise));
  const key = `${ns}/${name}`;
  const scope = o.scopes.get(ns);
  const cluster = scope?.statefulclusters.items.get(key);
  if (!scope || !cluster) throw new Error(deletedText(name));
  const ledger = ledgerOf(o, key, cluster.meta.uid);
  const { p } = await decide(o, snapshotOf(o, cluster, ledger, scope));
  for (const evidence of p.evidence)
    ledger.desk.seen.set(evidence, o.world.uptime() - LIMITS.trustMs);
  return { ...(await decide(o, snapshotOf(o, cluster, ledger, scope))), untried };
}

/** What `plan` says of one action, in the words of its Event. A new identity is drawn by chance, so
 *  it has no name yet. */
function actionRow(a: Action, members: readonly Member[]): string {
  const isNew = a.do === 'Make' && members.every((m) => m.identity !== a.identity);
  const marks = a.do === 'Patch' ? metaOf({ ...a.change }).annotations : {};
  const policy = a.verb === 'retire' && marks[MARK.retiredPolicy];
  const more = [
    a.do === 'Make' && a.replaces && `replaces ${a.replaces.split(' ')[0]}`,
    policy && `policy ${policy}`,
    a.do === 'Update' && `to revision ${a.revision}`,
  ];
  const what = isNew ? 'a new member' : subjectOf(a);
  return [a.verb, what, a.because, more.filter(Boolean).join(', ')].join('\t');
}
function actionsText({ actions, members }: Plan): string {
  if (actions.length === 0) return 'The operator would do nothing now.';
  const rows = actions.map((a) => actionRow(a, members));
  const counted = unique(rows).map((row) => {
    const times = rows.filter((other) => other === row).length;
    const [verb = '', ...rest] = row.split('\t');
    return [`  ${verb}${times > 1 ? ` × ${times}` : ''}`, ...rest];
  });
  return `The operator would now\n${tableOf(counted)}`;
}
function planText(s: Snapshot, p: Plan, untried: boolean, now: number): string {
  const { meta, spec } = s.cluster;
  const live = p.members.filter(isLive);
  const others = p.members.filter((m) => m.state !== 'Available' && (m.pod || isLive(m)));
  const reasons: readonly (readonly [title: string, why: string | false | undefined])[] = [
    ['ReplacementWithheld', p.withheld],
    ['Stalled', p.stalled || trueIn(s.cluster, 'Stalled')?.message],
    ['Creations wait', p.waits],
    ['The update cannot go on', p.blocked],
    ['Not tried', untried && 'whether the API server takes what would be made'],
    ['Paused', meta.annotations[MARK.paused] === 'true' && `by the annotation ${MARK.paused}`],
    ['Update', [...updateMessage(s.cluster, p), ...p.notes].join('; ')],
    ['Blind', !s.nodes && 'nodes cannot be read: every node counts as open'],
  ];
  const rows = others.map((m) => {
    const { health, node, since, reason } = memberStatus(s, p.revisions, m);
    return [painted(health), m.identity, node || '-', sinceText(since, now) || '-', reason];
  });
  const available = live.length - others.filter(isLive).length;
  const counts = `${spec.replicas} wanted, ${live.length} live, ${available} available`;
  return paragraphs(
    `${bold(meta.name)} ${gray(`in ${meta.namespace}`)}  ${counts}`,
    actionsText(p),
    ...reasons.map(([title, why]) => (why ? `${yellow(`▲ ${title}`)}\n${folded(why)}` : '')),
    titled('HEALTH  IDENTITY  NODE  FOR  REASON', rows),
    gray('Nothing was written.'),
  );
}
async function showPlan(at: There): Promise<void> {
  const { world, ns, name } = at;
  await getCluster(at);
  await preflight(world, { namespaces: [ns], selector: '', workers: 1 }, false);
  const { s, p, untried } = await decideOnly(world, ns, name);
  say(planText(s, p, untried, world.now()));
}

// ── replace, restore ────────────────────────────────────────────────────────────────────────────
async function replace({ world, ns, name }: There): Promise<void> {
  const path = pathOf(PODS, ns, name);
  const raw = await api(world, { method: 'GET', path });
  const meta = metaOf(raw);
  const { owners, labels, deletedMs } = meta;
  const owner = owners.find((o) => o.controller && o.kind === 'StatefulCluster');
  if (!owner) throw new Error(`pod "${name}" is not a member of a StatefulCluster`);
  if (deletedMs !== undefined) throw new Error(`pod "${name}" is being deleted already`);
  await merge(world, path, meta, { metadata: { annotations: { [MARK.replace]: 'true' } } });
  say(`pod/${name} annotated: ${owner.name} gives ${labels[MARK.identity]} up for a new member`);
}
async function restore(at: There): Promise<void> {
  const identity = at.names[1] ?? '';
  const { world, ns, name } = at;
  const { spec, status } = clusterOf(await getCluster(at));
  const labels = { [MARK.cluster]: name, [MARK.identity]: identity };
  const claims = (await itemsOf(world, pathOf(CLAIMS, ns), { matchLabels: labels })).map(metaOf);
  const pods = await itemsOf(world, pathOf(PODS, ns), { matchLabels: labels });
  const retired = claims.filter((meta) => meta.labels[MARK.retired] === 'true');
  const going = claims.find((meta) => meta.deletedMs !== undefined);
  const who = `identity "${identity}" of ${name}`;
  if (claims.length + pods.length === 0) throw new Error(`${who}: no claim is left of it`);
  if (retired.length === 0) throw new Error(`${who} is not retired`);
  if (pods.length > 0) throw new Error(`${who} still has its pod: restore it once that is gone`);
  if (going) throw new Error(`${who}: its claim ${going.name} is being deleted`);
  for (const meta of retired) {
    const change = { metadata: { annotations: { [MARK.restore]: 'true' } } };
    await merge(world, pathOf(CLAIMS, ns, meta.name), meta, change);
    say(`persistentvolumeclaim/${meta.name} annotated`);
  }
  const { replicas: live = 0 } = status;
  const wait = live < spec.replicas ? '' : ', once there is room';
  say(`${identity} returns as the next member of ${name}${wait}: ${live} of ${spec.replicas} live`);
}

// ── rollout, in kubectl's words, whose own `rollout` knows no custom kinds ──────────────────────
const FULL = 'statefulcluster.enge.me';

/** ControllerRevisions of this very cluster, oldest first. */
async function historyOf(at: There, { meta }: StatefulCluster): Promise<readonly Revision[]> {
  const path = pathOf(REVISIONS, at.ns);
  const all = (await itemsOf(at.world, path, { matchLabels: { [MARK.cluster]: at.name } })).map(
    revisionOf,
  );
  const own = all.filter((r) => isControlledBy(r.meta, meta.uid));
  return own.sort((a, b) => a.number - b.number);
}
function numberIn({ flags }: Asked, flag: string): number {
  const text = flags[flag] ?? '0';
  if (!/^\d+$/.test(text)) throw new UsageError(`--${flag} must be a number`);
  return Number(text);
}

async function history(at: There): Promise<void> {
  const number = numberIn(at, 'revision');
  const all = await historyOf(at, clusterOf(await getCluster(at)));
  if (number === 0) {
    const cause = ({ meta }: Revision): string => meta.annotations[MARK.changeCause] ?? '<none>';
    const rows = all.map((r) => [String(r.number), cause(r)]);
    const table = titled('REVISION  CHANGE-CAUSE', rows) || 'No rollout history found.';
    return say(`${FULL}/${at.name}\n${table}`);
  }
  const found = all.find((r) => r.number === number);
  if (!found) throw new Error('unable to find the specified revision');
  const template = (await yamlOf(found.template)).replaceAll(/^/gm, '  ');
  say(`${FULL}/${at.name} with revision #${number}\nPod Template:\n${template}`);
}

/** Replaces the template as a whole: a merge would keep what the newer one added. */
async function undo(at: There): Promise<void> {
  const { name } = at;
  const number = numberIn(at, 'to-revision');
  const raw = await getCluster(at);
  const c = clusterOf(raw);
  if (c.spec.updateStrategy.rollingUpdate.paused) {
    const cure = `resume it first with '${PROGRAM} rollout resume ${name}'`;
    throw new Error(`you cannot rollback a paused statefulcluster; ${cure}`);
  }
  const all = await historyOf(at, c);
  if (number === 0 && all.length < 2) throw new Error('no last revision to roll back to');
  const to = number === 0 ? all.at(-2) : all.find((r) => r.number === number);
  if (!to) throw new Error(`unable to find specified revision ${number} in history`);
  if (sameTemplate(to.template, c.spec.template)) {
    const why = `current template already matches revision ${to.number}`;
    return say(`${FULL}/${name} skipped rollback (${why})`);
  }
  await rollBackTo(at, c.meta, raw['metadata'].annotations !== undefined, to);
  say(`${FULL}/${name} rolled back`);
}
/** Lands only on the spec that was looked at, so that no edit made meanwhile is lost. The cause of
 *  the change goes back with the template, where the cluster has annotations at all. */
async function rollBackTo(at: There, meta: Meta, isNoted: boolean, to: Revision): Promise<void> {
  const { world, ns, name } = at;
  const path = clusterPath(ns, name);
  const [now, then] = [meta, to.meta].map((m) => m.annotations[MARK.changeCause]);
  const place = `/metadata/annotations/${MARK.changeCause.replace('/', '~1')}`;
  const cause = { op: then === undefined ? 'remove' : 'add', path: place, value: then };
  const body = [
    { op: 'test', path: '/metadata/uid', value: meta.uid },
    { op: 'test', path: '/metadata/generation', value: meta.generation },
    { op: 'replace', path: '/spec/template', value: to.template },
    ...(now !== then && isNoted ? [cause] : []),
  ];
  const contentType = 'application/json-patch+json';
  await api(world, { method: 'PATCH', path: path + BY, contentType, body }).catch(async (error) => {
    // A test that failed and a template that is refused have one code; a look tells them apart.
    const { uid, generation } = metaOf(await getCluster(at));
    if (uid === meta.uid && generation === meta.generation) throw error;
    throw new Error(`${FULL} "${name}" was changed meanwhile: nothing was rolled back, try again`);
  });
}

/** One merge patch, refused where it would change nothing. */
const edit = (verb: 'restarted' | 'paused' | 'resumed') => async (at: There) => {
  const { world, ns, name } = at;
  const { meta, spec: old } = clusterOf(await getCluster(at));
  const { paused } = old.updateStrategy.rollingUpdate;
  const refusal = {
    restarted: paused && `can't restart while paused (run rollout resume first)`,
    paused: paused && 'is already paused',
    resumed: !paused && 'is not paused',
  }[verb];
  if (refusal) throw new Error(`${FULL} "${name}" ${refusal}`);
  const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date(world.now()).toISOString() };
  const spec =
    verb === 'restarted'
      ? { template: { metadata: { annotations } } }
      : { updateStrategy: { rollingUpdate: { paused: verb === 'paused' } } };
  await merge(world, clusterPath(ns, name), meta, { spec });
  say(`${FULL}/${name} ${verb}`);
};

/** What the rollout waits for, or ''. */
function waitsFor(c: StatefulCluster): string {
  const { meta, spec, status } = c;
  const { updatedReplicas: updated = 0, replicas: live = 0, availableReplicas: up = 0 } = status;
  const wanted = Math.max(0, spec.replicas - partitionOf(spec));
  const head = `Waiting for statefulcluster "${meta.name}" rollout to finish`;
  if (!isObserved(c)) return 'Waiting for statefulcluster spec update to be observed...';
  if (updated < wanted) return `${head}: ${updated} out of ${wanted} members have been updated...`;
  if (live > spec.replicas) return `${head}: ${live - spec.replicas} members are still to go...`;
  if (up < spec.replicas) return `${head}: ${up} of ${spec.replicas} members are available...`;
  return '';
}
async function rolloutStatus(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const limitMs = durationMs(flags['timeout'] ?? '0');
  const { spec } = clusterOf(await getCluster(at));
  if (spec.updateStrategy.type === 'OnDelete')
    throw new Error('rollout status is only available for RollingUpdate strategy type');
  let failure = '';
  let told = '';
  const see = ([raw]: readonly Raw[]): boolean => {
    const c = raw && clusterOf(raw);
    const stalled = c && isObserved(c) && trueIn(c, 'Stalled')?.message;
    if (stalled) failure = `statefulcluster "${name}" is stalled: ${stalled}`;
    else if (!c) failure = deletedText(name);
    if (!c || failure) return true;
    const text = waitsFor(c) || `statefulcluster "${name}" successfully rolled out`;
    if (text !== told) say((told = text));
    return waitsFor(c) === '';
  };
  const inTime = await keepSeeing(world, oneOrAll(ns, name), see, { limitMs });
  if (failure || !inTime) throw new Error(failure || 'timed out waiting for the condition');
}
/** A duration as Go writes it; 0 is no limit. */
function durationMs(text: string): number {
  const sizes: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  if (!/^(0|(\d+(\.\d+)?(ms|s|m|h))+)$/.test(text))
    throw new UsageError('--timeout must be a time like 90s, 5m or 1h30m');
  const parts = [...text.matchAll(/([\d.]+)(ms|s|m|h)/g)];
  const sum = parts.reduce((ms, [, n, unit = '']) => ms + Number(n) * (sizes[unit] ?? 0), 0);
  return sum || Infinity;
}

// ── adopt: a StatefulSet becomes a StatefulCluster, and no pod is restarted ─────────────────────
// What is there says how far an earlier run came, so each step is found done when it is repeated.
const ADOPTS = 'enge.me/adopts'; // On the cluster: UID of the set, revision of its pods.
const SETS = 'statefulsets.apps';
const SET_HASH = 'controller.kubernetes.io/hash'; // Label of a StatefulSet's revisions.
const setPath = (ns: string, name = ''): string =>
  `/apis/apps/v1${inNamespace(ns)}/statefulsets${name && `/${name}`}`;
const find = (world: World, path: string): Promise<Raw | undefined> =>
  api(world, { method: 'GET', path }).catch((error: unknown) => {
    if (error instanceof ApiError && error.code === 404) return undefined;
    throw error;
  });

/** The cluster of a set: its fields have the names of ours, and the template stays as it is. */
function clusterFrom({ metadata, spec }: Raw): Raw {
  const { ordinals: _, template: whole, volumeClaimTemplates = [], ...kept } = spec as Raw;
  const claims = volumeClaimTemplates.map((claim: Raw) => {
    const { name, labels, annotations } = claim['metadata'];
    return { metadata: { name, labels, annotations }, spec: claim['spec'] };
  });
  const { name, namespace, labels, uid } = metadata;
  const template = revisionTemplate(whole as V1PodTemplateSpec);
  const annotations = { [MARK.paused]: 'true', [ADOPTS]: `${uid} ${revisionHash(template, 0)}` };
  const meta = { name, namespace, labels, annotations };
  const own = { ...kept, template, volumeClaimTemplates: claims };
  return { apiVersion: 'enge.me/v1alpha1', kind: 'StatefulCluster', metadata: meta, spec: own };
}
/** Why this set cannot be adopted now, or ''. */
function obstacleTo(set: Raw, wards: readonly Ward[]): string {
  const { spec, status = {} } = set;
  const pods = wards.map(({ pod }) => pod);
  const alive = pods.filter((pod) => !isTerminating(pod) && !isTerminal(pod)).length;
  const old = pods.find((pod) => pod.meta.labels[MARK.revision] !== status.updateRevision);
  if (alive !== spec.replicas)
    return `${alive} of its ${spec.replicas} pods are there: wait for all`;
  if (old) return `${old.meta.name} is not at its newest revision: let the rollout end first`;
  return specProblem(clusterOf(clusterFrom(set)));
}
/** What speaks against it unless the user insists, or ''. */
function doubtAbout({ metadata, spec }: Raw): string {
  const { ownerReferences: owners = [], labels = {}, annotations = {} } = metadata;
  const keys = Object.keys({ ...labels, ...annotations });
  const isHelms = labels['app.kubernetes.io/managed-by'] === 'Helm';
  const keepers: readonly (readonly [name: string, keeps: boolean])[] = [
    [String(owners[0]?.kind), owners.length > 0],
    ['Helm', isHelms || keys.some((key) => key.startsWith('meta.helm.sh/'))],
    ['Argo CD', keys.some((key) => key.startsWith('argocd.argoproj.io/'))],
    ['Flux', keys.some((key) => key.includes('toolkit.fluxcd.io/'))],
  ];
  const keeper = keepers.find(([, keeps]) => keeps)?.[0];
  const lost = ['apps.kubernetes.io/pod-index', 'statefulset.kubernetes.io/pod-name'];
  const read = lost.find((label) => JSON.stringify(spec.template).includes(label));
  const doubt = read ? `its template reads the label ${read}, which members do not have` : '';
  const why = keeper ? `${keeper} keeps it, and would make it again` : doubt;
  return why && `${why} (--force adopts it all the same)`;
}

/** What is handed over. Once the set is gone, or going, the label tells its pods. */
async function wardsOf({ world, ns, name }: There, set: Raw | undefined) {
  const marked = { matchLabels: { [MARK.cluster]: name } };
  const all = await itemsOf(world, pathOf(PODS, ns), set?.['spec'].selector ?? marked);
  const pods = all.map(podOf).filter(({ meta }) => !set || isControlledBy(meta, metaOf(set).uid));
  const claims = (await itemsOf(world, pathOf(CLAIMS, ns), {})).map(claimOf);
  return pods.flatMap((pod) => {
    const identity = identityOf(pod, name);
    const own = claims.filter(({ meta }) => pod.claims.includes(meta.name));
    return [{ pod, identity, claims: own.filter((c) => isClaimOf(c.meta.name, name, identity)) }];
  });
}
type Ward = Awaited<ReturnType<typeof wardsOf>>[number];

/** Marks what the set still controls, which is harmless under it. */
async function mark(at: There, set: Raw | undefined): Promise<boolean> {
  const { world, ns, name } = at;
  let did = false;
  for (const { pod, identity, claims } of set ? await wardsOf(at, set) : []) {
    const labels = ourLabels(name, identity);
    const all = [[PODS, pod] as const, ...claims.map((claim) => [CLAIMS, claim] as const)];
    for (const [kind, { meta }] of all) {
      if (selectorMatches({ matchLabels: labels }, meta.labels)) continue;
      await merge(world, pathOf(kind, ns, meta.name), meta, { metadata: { labels } });
      did = true;
    }
  }
  return did;
}
/** Deletes the set and leaves its pods and claims: the garbage collector frees them of it first. */
async function orphan({ world, ns, name }: There, set: Raw | undefined): Promise<boolean> {
  if (!set) return false;
  const { uid, deletedMs } = metaOf(set);
  const body = { propagationPolicy: 'Orphan', preconditions: { uid } };
  if (deletedMs === undefined)
    await api(world, { method: 'DELETE', path: setPath(ns, name), body });
  const path = withQuery(setPath(ns), { fieldSelector: `metadata.name=${name}` });
  const isGone = (raws: readonly Raw[]): boolean => !raws.some((raw) => metaOf(raw).uid === uid);
  if (await keepSeeing(world, path, isGone, { limitMs: LIMITS.syncMaxMs })) return true;
  throw new Error(`${SETS} "${name}" is still going: run this again once it is gone`);
}
/** Makes the cluster the controller of its pods, at the revision of the set's own template. */
async function handOver(at: There): Promise<boolean> {
  const cluster = clusterOf(await getCluster(at));
  const { meta } = cluster;
  const revision = meta.annotations[ADOPTS]?.split(' ')[1] ?? '';
  let did = false;
  for (const { pod } of await wardsOf(at, undefined)) {
    const { name, resourceVersion, labels } = pod.meta;
    if (isControlledBy(pod.meta, meta.uid) && labels[MARK.revision] === revision) continue;
    const ownerReferences = [...othersOf(pod, meta), ownerOf(cluster)];
    const change = { resourceVersion, ownerReferences, labels: { [MARK.revision]: revision } };
    await merge(at.world, pathOf(PODS, at.ns, name), pod.meta, { metadata: change });
    did = true;
  }
  return did;
}
/** Waits until the operator counts every pod, and none as outdated: only then may it act. */
async function counted(at: There): Promise<boolean> {
  const count = (await wardsOf(at, undefined)).length;
  const see = ([raw]: readonly Raw[]): boolean => {
    const { replicas, updatedReplicas } = raw ? clusterOf(raw).status : {};
    return replicas === count && updatedReplicas === count;
  };
  const limits = { limitMs: LIMITS.syncMaxMs };
  if (await keepSeeing(at.world, oneOrAll(at.ns, at.name), see, limits)) return true;
  throw new Error(`the operator does not count all ${count} pods: is it running? Run this again`);
}
/** Deletes the history of the set, which nobody owns any more. */
async function forget(at: There): Promise<boolean> {
  const { spec } = clusterOf(await getCluster(at));
  const all = (await itemsOf(at.world, pathOf(REVISIONS, at.ns), spec.selector)).map(metaOf);
  const isLeft = ({ name, owners, labels }: Meta): boolean =>
    owners.length === 0 && name.startsWith(`${at.name}-`) && SET_HASH in labels;
  for (const { name, uid } of all.filter(isLeft)) {
    const body = { preconditions: { uid } };
    await api(at.world, { method: 'DELETE', path: pathOf(REVISIONS, at.ns, name), body });
  }
  return all.some(isLeft);
}

type Step = readonly [words: string, run: () => Promise<boolean>]; // False: found done.
async function adopt(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const set = await find(world, setPath(ns, name));
  const old = await find(world, clusterPath(ns, name));
  const of = old?.['metadata'].annotations?.[ADOPTS]?.split(' ')[0];
  if (!set && !old) throw new Error(`${SETS} "${name}" not found`);
  if (set && old && of !== metaOf(set).uid)
    throw new Error(`there is a StatefulCluster "${name}" already`);
  const whole = set && metaOf(set).deletedMs === undefined ? set : undefined;
  const create = async (dryRun: string): Promise<boolean> => {
    const path = clusterPath(ns) + BY + dryRun;
    if (!old) await api(world, { method: 'POST', path, body: clusterFrom(set ?? {}) });
    return !old;
  };
  if (whole) {
    const why =
      obstacleTo(whole, await wardsOf(at, whole)) || (flags['force'] ? '' : doubtAbout(whole));
    if (why) throw new Error(`${SETS} "${name}" cannot be adopted: ${why}`);
    await create('&dryRun=All'); // What the API server has against it, it says now.
  }
  const annotations = { [MARK.paused]: null, [ADOPTS]: null };
  const change = { metadata: { annotations } };
  const resume = async (): Promise<boolean> => {
    const { meta } = clusterOf(await getCluster(at));
    return merge(world, clusterPath(ns, name), meta, change).then(() => true);
  };
  const steps: readonly Step[] = [
    ['label its pods and claims', () => mark(at, whole)],
    ['create the cluster, paused', () => create('')],
    ['delete the set, but not its pods', () => orphan(at, set)],
    ['make the cluster the controller of the pods', () => handOver(at)],
    ['wait until the operator counts them all', () => counted(at)],
    ['let the operator act', resume],
    ['delete the history of the set', () => forget(at)],
  ];
  say(`${SETS}/${name} becomes ${FULL}/${name}, and no pod is restarted`);
  for (const [words, run] of set || of ? steps : steps.slice(-1)) {
    if (flags['dry-run']) say(`  · ${words}`);
    else say(`  ✓ ${words}${(await run()) ? '' : gray(' (found done)')}`);
  }
  say('New members have random names: mend what names pods by number, or the set itself.');
}

// ── manifest ────────────────────────────────────────────────────────────────────────────────────
const SYSTEM = 'statefulcluster-system'; // The namespace that deploy.yaml names.
const isWide = (rule: Raw): boolean =>
  rule['resources'].every((r: string) => ['nodes', 'persistentvolumes'].includes(r));

/** Rights in one namespace: a ClusterRole that is bound becomes a Role, and what has no namespace
 *  stays in one of its own, to take or leave. All other objects stay as they are, but for the
 *  Namespace: it must exist, with labels of its owner's choice. */
async function narrowed(texts: readonly string[], ns: string): Promise<readonly string[]> {
  const { loadYaml, dumpYaml } = await import('@kubernetes/client-node');
  const docs = texts.map((text) => ({ text, o: loadYaml<Raw>(text) }));
  const named = (kind: string, name: string): Raw | undefined =>
    docs.find(({ o }) => o['kind'] === kind && (o['roleRef'] ?? o['metadata']).name === name)?.o;
  const optional: string[] = [];
  const split = (text: string, { apiVersion, kind, metadata, roleRef, subjects }: Raw): string => {
    const name: string = roleRef?.name ?? metadata.name;
    const role = named('ClusterRole', name);
    if (!role || !named('ClusterRoleBinding', name)) return text;
    const dump = (isOut: boolean): string => {
      const rules = role['rules'].filter((rule: Raw) => isWide(rule) === isOut);
      const { labels } = metadata;
      const own = isOut ? { labels, name: `${name}-${ns}` } : { labels, name, namespace: ns };
      const to = isOut ? { ...roleRef, name: own.name } : { ...roleRef, kind: 'Role' };
      const kept = isOut ? kind : kind.replace('Cluster', '');
      const head = { apiVersion, kind: kept, metadata: own };
      const body = roleRef ? { ...head, roleRef: to, subjects } : { ...head, rules };
      return rules.length > 0 ? dumpYaml(body, { flowLevel: 3 }) : '';
    };
    optional.push(dump(true));
    return dump(false);
  };
  const all = docs.map(({ text, o }) => {
    if (o['kind'] === 'Namespace') return '';
    if (/^ClusterRole/.test(o['kind'])) return split(text, o);
    if (o['kind'] !== 'Deployment') return text;
    return text.replace(/(?<=[\s,[])(-A|--all-namespaces)(?=[\s,\]])/, `--namespace=${ns}`);
  });
  const note = '# To take or leave: without it, what rests on nodes and volumes is not judged.\n';
  return [...all, ...optional.map((text) => text && note + text)].filter(Boolean);
}
async function manifest({ flags }: Asked): Promise<void> {
  const { image, namespace: ns, namespaced } = flags;
  if (namespaced && !ns) throw new UsageError('--namespaced needs -n: the one it works in and for');
  if (image !== undefined && !/^\w[\w.:/@-]*$/.test(image))
    throw new UsageError('--image must be the name of an image');
  const built = process.env['STATEFULCLUSTER_MANIFEST']; // Set by build.mjs.
  let text = built ?? readFileSync(`${import.meta.dirname}/deploy.yaml`, 'utf8');
  if (ns) text = text.replaceAll(SYSTEM, ns);
  if (image) text = text.replaceAll(/^( +(?:- )?image:) .*$/gm, `$1 ${image}`);
  const texts = text.split(/^---\n/m);
  say((namespaced && ns ? await narrowed(texts, ns) : texts).join('---\n').trimEnd());
}

// ── The commands ────────────────────────────────────────────────────────────────────────────────
/** Flag → its short form, the word of its value ('' for none), what it does. */
const FLAGS: Readonly<Record<string, readonly [short: string, value: string, about: string]>> = {
  watch: ['w', '', 'show every change, until Ctrl-C'],
  'all-namespaces': ['A', '', 'clusters of all namespaces'],
  output: ['o', 'FORMAT', 'json or yaml: the objects as they are'],
  revision: ['', 'N', 'show the template of this revision'],
  'to-revision': ['', 'N', 'default: the one before the newest'],
  timeout: ['', 'TIME', 'give up after 90s, 5m, 1h30m; default: never'],
  'dry-run': ['', '', 'say what would be done'],
  force: ['', '', 'although Helm, Argo CD, Flux or an owner keeps it'],
  image: ['', 'IMAGE', 'in place of the released one'],
  namespaced: ['', '', 'with rights in the namespace of -n only'],
  namespace: ['n', 'NS', 'default: that of the context'],
  context: ['', 'NAME', 'of the kubeconfig; default: its current one'],
  kubeconfig: ['', 'FILE', 'default: $KUBECONFIG or ~/.kube/config'],
  help: ['h', '', 'print this'],
};
/** Command with its words, those in brackets may be left out; what it does; flags; what runs. */
type Row = readonly [usage: string, about: string, flags: string, run: (asked: Asked) => unknown];
const THERE = 'namespace context kubeconfig help';
const ROWS: readonly Row[] = [
  ['run [FLAGS]', 'replace lost members, until stopped', '', () => undefined],
  [
    'status [NAME]',
    'the clusters, or one and its members',
    `watch all-namespaces output ${THERE}`,
    there(status),
  ],
  ['plan NAME', 'what the operator would do now, and why', THERE, there(showPlan)],
  ['replace POD', 'give a member up for a new one', THERE, there(replace)],
  ['restore NAME IDENTITY', 'bring a retired identity back with its claims', THERE, there(restore)],
  [
    'rollout status NAME',
    'wait until a rollout is through',
    `timeout ${THERE}`,
    there(rolloutStatus),
  ],
  ['rollout history NAME', 'revisions of the template', `revision ${THERE}`, there(history)],
  ['rollout undo NAME', 'go back to an earlier revision', `to-revision ${THERE}`, there(undo)],
  [
    'rollout restart NAME',
    'restart every member, within the budget',
    THERE,
    there(edit('restarted')),
  ],
  ['rollout pause NAME', 'stop updates, not replacements', THERE, there(edit('paused'))],
  ['rollout resume NAME', 'go on with updates', THERE, there(edit('resumed'))],
  ['adopt STATEFULSET', 'turn it into a StatefulCluster', `dry-run force ${THERE}`, there(adopt)],
  [
    'manifest',
    'what installs the operator, for kubectl apply -f -',
    'image namespaced namespace help',
    manifest,
  ],
  ['version', 'print the version', 'help', () => say(VERSION)],
  ['help [COMMAND] [WORD]', 'explain a command and its flags', 'help', help],
];
/** What help says besides. */
const MORE: Readonly<Record<string, string>> = {
  run: RUN_HELP,
  status: 'Withheld members come first, then the unhealthy ones.',
  plan: 'The decision of the operator itself, on what is there now. Only reads are sent.',
  replace: `Annotates the pod ${MARK.replace}=true: its claims are retired, and a new
identity takes its place. An available member waits for its turn.`,
  restore: `Annotates its claims ${MARK.restore}=true: it returns as the next member
for which there is room.`,
  'rollout status': 'Exit code 1 when it stalls or the time is up.',
  'rollout undo': 'Replaces spec.template as a whole, unless the spec is edited meanwhile.',
  adopt: 'No pod is restarted. Interrupted, it goes on when it is repeated.',
  manifest: `With --namespaced its last objects let it read nodes and volumes: take or leave
them. The namespace must exist.`,
};
const wordsIn = ([usage]: Row): string => usage.replace(/ [[A-Z].*/, '');
const rowOf = (words: string): Row | undefined => ROWS.find((row) => wordsIn(row) === words);

const unknown = (words: string): UsageError =>
  new UsageError(`there is no command "${words}": see ${PROGRAM} help`);

function help({ names }: Asked): void {
  const words = names.join(' ');
  const row = rowOf(words);
  if (row) return say(helpOf(row));
  const rows = ROWS.filter((other) => wordsIn(other).startsWith(words));
  if (rows.length === 0) throw unknown(words);
  const table = tableOf(rows.map(([usage, about]) => [`  ${usage}`, about]));
  say(`statefulcluster ${VERSION}: stateful pods whose identity is never re-used\n\n${table}\n`);
  say(`${PROGRAM} help COMMAND explains each with its flags.`);
}
function helpOf(row: Row): string {
  const [usage, about, flags] = row;
  const lines = flags.split(' ').map((flag) => {
    const [short = '', value = '', says = ''] = FLAGS[flag] ?? [];
    return [`  ${short && `-${short}, `}--${flag} ${value}`, says];
  });
  const more = MORE[wordsIn(row)];
  return paragraphs(`${PROGRAM} ${usage}\n  ${about}`, more ?? '', flags && tableOf(lines));
}

const OWN_KIND = /^(stc|statefulclusters?(\.enge\.me)?)\//;
/** Names may come as kubectl has them; with another kind they are no names. */
const KINDS: Readonly<Record<string, RegExp>> = {
  ...{ NAME: OWN_KIND, '[NAME]': OWN_KIND, POD: /^(po|pods?)\// },
  STATEFULSET: /^(sts|statefulsets?(\.apps)?)\//,
};
/** Words and flags of one command. */
function askedOf(row: Row, args: readonly string[]): Asked {
  const [usage, , flags] = row;
  const options = Object.fromEntries(
    flags.split(' ').map((flag) => {
      const [short = '', value = ''] = FLAGS[flag] ?? [];
      return [flag, { type: value ? 'string' : 'boolean', ...(short && { short }) } as const];
    }),
  );
  const { values, positionals } = parsed({ args: [...args], options, allowPositionals: true });
  const given = Object.entries(values).map(([flag, value]) => [flag, String(value)] as const);
  const words = usage.split(' ').filter((word) => /^[[A-Z]/.test(word));
  const names = positionals.map((name, i) => name.replace(KINDS[words[i] ?? ''] ?? /^$/, ''));
  const least = words.filter((word) => !word.startsWith('[')).length;
  const counts = names.length >= least && names.length <= words.length;
  if (!counts && !values['help']) throw new UsageError(`usage: ${PROGRAM} ${usage}`);
  const all = [...names, ...given.flatMap(([flag, v]) => (flag === 'namespace' ? [v] : []))];
  const odd = all.find((name) => !/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name));
  if (odd !== undefined) throw new UsageError(`"${odd}" is not a name`);
  return { names, flags: Object.fromEntries(given) };
}

/** Finds the command and runs it. */
async function obey(argv: readonly string[]): Promise<unknown> {
  const [first = 'help', second = ''] = argv;
  const word = first === '-h' ? 'help' : first.replace(/^--(help|version)$/, '$1');
  const pair = rowOf(`${word} ${second}`);
  const row = pair ?? rowOf(word);
  if (!row) throw unknown(word === 'rollout' ? `${word} ${second}`.trim() : word);
  const args = argv.slice(pair ? 2 : 1);
  if (word === 'run') return run(args);
  const asked = askedOf(row, args);
  return asked.flags['help'] ? say(helpOf(row)) : row[3](asked);
}

// ═══ 16 MAIN · effects ═══════════════════════════════════════════════════════════════════════════
// The entry: one command, one exit code. Importing this file has no effect; running it (`node
// operator.ts run`) needs no build.

/** Runs one command; returns the exit code. Never throws. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    await obey(argv);
    await new Promise<void>((done) => process.stdout.write('', () => done())); // All is out.
    return 0;
  } catch (error) {
    console.error(`statefulcluster: ${wordsOf(error).split('\n')[0]}`);
    return error instanceof UsageError ? 2 : 1;
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
