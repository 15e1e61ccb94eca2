// StatefulCluster: stateful pods on Kubernetes whose identity is never re-used.
// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type http2 from 'node:http2';
import type net from 'node:net';
import { hostname } from 'node:os';
import { parseArgs, stripVTControlCharacters } from 'node:util';
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
// itself up. A changed template reaches the members in place or by a new pod under the same
// identity, within a budget. From here to THE LINE all decides and touches nothing; below, all
// obeys.
//
// I1 No two pods ever have the same identity, except for Recreate, resume, restore and
//    `WhenVolumesLost`, where pod and claims are those of that identity and the former pod object
//    is gone (a live GET said so).
// I2 A claim is mounted by pods of one identity only.
// I3 A claim is deleted only if it was marked with policy Delete, after its pod object is gone, or
//    unbound after a refused or interrupted creation.
// I4 Under one leader live members never exceed replicas + maxSurge, whatever crashes, repeats or
//    lags. After two processes overlapped, the surplus is at most the batch in flight, and the
//    youngest that were never Ready go first.
// I5 By its own choice the operator never takes availability below replicas - maxUnavailable. Up to
//    LIMITS.liveReadsMax others are read live before it does; beyond them the cache is believed.
// I6 When faults end, status equals spec in bounded steps; then only watches and the Lease.
// I7 The operator never writes spec or metadata of the StatefulCluster.
// I8 Nothing controlled by another owner is changed or deleted.
// I9 Every replacement has one Reason, the same word in the Event, the metric, the log,
//    `enge.me/replaces`, the mark on the claims and status.retired; it is decided once and carried
//    by the marks. A member without claims has no marks: a crash between its deletion and its
//    successor loses the word, and one between two pods of it, before the status said so, its name.

/** Every API verb this operator ever sends; `tidy` holds the roles in deploy.yaml against it. */
export const RIGHTS: Readonly<Record<string, string>> = {
  'enge.me/statefulclusters': 'get list watch',
  'enge.me/statefulclusters/status': 'patch',
  'enge.me/statefulclusters/finalizers': 'update', // Asked of whoever sets blockOwnerDeletion.
  pods: 'get list watch create patch delete',
  'pods/resize': 'patch',
  'apps/controllerrevisions': 'get list watch create patch delete',
  persistentvolumeclaims: 'get list watch create patch delete',
  nodes: 'get list watch', // Without it, NodeGone and NodeUnreachable are not judged.
  persistentvolumes: 'get', // Without it, a volume's node affinity is not judged.
  events: 'create patch',
  'coordination.k8s.io/leases': 'list create update', // In the Lease's namespace only.
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
  restore: 'enge.me/restore',
  recreating: 'enge.me/recreating',
  inPlace: 'enge.me/in-place',
  paused: 'enge.me/paused',
  namespaces: 'enge.me/namespaces', // On a Lease: its holder's scope, and the next one:
  selector: 'enge.me/selector',
  deletionCost: 'controller.kubernetes.io/pod-deletion-cost',
  changeCause: 'kubernetes.io/change-cause',
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
  placeMs: 5_000, // A pod without a node for so long may have volumes that no node can use.
  liveReadsMax: 30, // Others read live before an available member is taken down.
  trustMs: 60_000, // Watched this long, an object's own timestamps are believed.
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
  readonly startedMs: number | undefined;
  readonly ready: boolean;
  readonly readySinceMs: number | undefined; // Last transition of the Ready condition.
  readonly disruption: string; // Reason of its DisruptionTarget condition, or ''.
  readonly disruptedMs: number | undefined;
  readonly restarts: number;
  readonly crashLooping: boolean;
  readonly trouble: string; // Why a container waits or the pod is not scheduled, or ''.
  readonly containerIDs: Dict; // By container; only kept while it is updated in place.
  readonly isObserved: boolean; // The kubelet has seen its newest spec.
  readonly resize: string; // Why cpu and memory are not as in its spec yet, or ''.
}

/** What is decided upon of a PersistentVolumeClaim. */
export interface Claim {
  readonly meta: Meta;
  readonly phase: string;
  readonly volume: string; // '' while unbound.
  readonly request: string; // spec.resources.requests.storage, a quantity.
  readonly selectedNode: string; // The node the scheduler chose for it, or ''.
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
/** A template's place at which two revisions differ, and its new value; undefined: removed. */
export interface Change {
  readonly path: readonly string[];
  readonly value: unknown;
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
/** A pod is deleted, or made, under an identity that goes on. */
export const COMEBACKS = ['Returned', 'Recreated', 'Suspended'] as const;
export type Upkeep = 'Interrupted' | 'Adopted' | 'Relabelled' | 'Expanded' | 'Owned' | 'Revised';
/** Why something is done: the same word everywhere (I9). */
export type Reason =
  Loss | 'ScaledOut' | 'ScaledIn' | 'Updated' | 'Restored' | (typeof COMEBACKS)[number] | Upkeep;

export const HEALTHS = [
  ...(['Pending', 'Starting', 'Ready', 'Available'] as const),
  ...(['Unready', 'Updating', 'Terminating', 'Lost'] as const),
] as const;
export type Health = (typeof HEALTHS)[number];

/** An identity with what exists of it. */
export interface Member {
  readonly identity: string;
  readonly pod: Pod | undefined;
  readonly lastPod: Pod | undefined; // As last seen by this process, when the object is gone.
  readonly told: MemberStatus | undefined; // By the status, when this process never saw its pod.
  readonly gone: boolean; // A live GET in this pass said that there is no pod object.
  readonly claims: readonly Claim[];
  readonly missing: readonly string[]; // Claims the pod mounts that a live GET did not find.
  readonly retired: Readonly<{ reason: Reason; policy: DataPolicy; atMs: number }> | undefined;
  readonly deletionIsOurs: boolean;
  readonly between: Recreation | undefined; // Its pod goes or went to come back.
  readonly volumesDownInMs: number; // Until no usable node satisfies its volumes; 0: now.
  readonly restartsBefore: number; // Restarts up to the time it was last Available.
}
/** A pod that goes, or went, to come back (Recreate, suspend, restore): its UID, the revision that
 *  the next one is to have ('': whatever is in force), and the claims that it had. */
export interface Recreation {
  readonly uid: string;
  readonly revision: string;
  readonly claims: readonly string[];
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
  readonly deletedUids: ReadonlyMap<string, Reason>; // Pods that this process ended, and why.
  readonly recreatedUids: ReadonlyMap<string, string>; // … to come back, at this revision.
  readonly restartsBefore: ReadonlyMap<string, number>; // Pod UID → restarts.
  readonly outage: Outage | undefined;
  readonly refusal: Refusal | undefined;
  readonly complaints: ReadonlyMap<string, Complaint>; // By name of the claim, pod or revision.
  readonly unfinished: ReadonlySet<string>; // Pods whose creation has no definite answer yet.
  readonly newest: string; // The youngest identity that this process posted, or ''.
  readonly returns: ReadonlyMap<string, Comeback>; // Identity → its returns in the last 10 min.
  readonly ends: ReadonlyMap<string, End>; // Identity → its end by this process in that time.
}
/** Why and when an identity ended. */
export interface End {
  readonly reason: Reason;
  readonly atMs: number;
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
/** Why a claim could not be expanded, a pod not be updated in place, or a revision not be tried, in
 *  the API server's words, and when to try again. A revision that it took has no message. */
export interface Complaint {
  readonly message: string;
  readonly request: string; // What was asked for: a quantity, or a revision.
  readonly untilUptime: number;
  readonly isPassing?: boolean; // No answer, or one that says nothing final.
}
/** The API server's refusal to create, in its own words. An edit or a pod's end may mend it. */
export interface Refusal {
  readonly message: string;
  readonly generation: number; // Of the cluster.
  readonly pods: number; // That were there.
  readonly times: number;
  readonly untilUptime: number;
}

/** All that a decision rests on. `live` names what was read live in this pass (`pods/x`, …). */
export interface Snapshot {
  readonly cluster: StatefulCluster;
  readonly pods: ReadonlyMap<string, Pod>;
  readonly claims: ReadonlyMap<string, Claim>;
  readonly revisions: ReadonlyMap<string, Revision>;
  readonly bodies: ReadonlyMap<string, Json>; // Whole pods, as read live in this pass.
  readonly nodes: ReadonlyMap<string, Node> | undefined; // undefined: no right to read them.
  readonly volumes: ReadonlyMap<string, Volume>;
  readonly volumesReadable: boolean;
  readonly live: ReadonlySet<string>;
  readonly memory: Memory;
  readonly denied: string; // Why its children may not be read any more, or ''.
  readonly uptime: number;
}

/** A thing to read live before the decision can be made. A trial is the dry-run of a revision's pod
 *  (`body`); its name is the revision's. */
export interface Ref {
  readonly kind:
    | ('pods' | 'persistentvolumeclaims' | 'nodes' | 'persistentvolumes')
    | ('statefulclusters' | 'controllerrevisions' | 'trials');
  readonly name: string;
  readonly body?: Body;
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

/** What the executor can do, each with its Reason. `change` is a merge patch of the object;
 *  `update` and `resize` are strategic ones. Claims are born with their member. */
export type Action =
  | Readonly<{ do: 'DeletePod'; pod: Pod; returnsAt?: string; because: Reason }>
  | Readonly<{
      do: 'AdoptPod' | 'ReleasePod' | 'LabelPod';
      pod: Pod;
      change: Json;
      because: Reason;
    }>
  | Readonly<{ do: 'UpdatePod'; pod: Pod; revision: string; because: Reason } & InPlace>
  | Readonly<{ do: 'DeleteClaim'; claim: Claim; because: Reason }>
  | Readonly<{ do: 'RetireClaim' | 'MarkClaim'; claim: Claim; change: Json; because: Reason }>
  | Readonly<{ do: 'RestoreClaim' | 'OwnClaim'; claim: Claim; change: Json; because: Reason }>
  | Readonly<{ do: 'ExpandClaim'; claim: Claim; request: string; because: Reason }>
  | Readonly<{ do: 'CreateRevision'; revision: Revision; body: Body; because: Reason }>
  | Readonly<{ do: 'ReviseRevision'; revision: Revision; change: Json; because: Reason }>
  | Readonly<{ do: 'DeleteRevision'; revision: Revision; because: Reason }>
  | Readonly<{ do: 'EndMember'; identity: string; uid: string; because: Reason }>
  | Readonly<{ do: 'CreateMember'; birth: Birth; replaces?: string; because: Reason }>;

/** The patches that change a living pod; `resize` goes to its own subresource. */
export interface InPlace {
  readonly update: Json;
  readonly resize: Json | undefined;
}

export type Creation = Extract<Action, { do: 'CreateMember' }>;
/** An identity ends, and there is nothing to write: no claim to mark, no pod to delete. */
export type Ending = Extract<Action, { do: 'EndMember' }>;

/** What is to be done in this pass, and why nothing is where nothing is. */
export interface Plan {
  readonly members: readonly Judged[];
  readonly actions: readonly Action[];
  readonly ask: readonly Ref[];
  readonly evidence: readonly string[]; // Keys of the evidence in force, for Memory.firstSeen.
  readonly wakeMs: number; // Look again after this long at the latest; Infinity = on events only.
  readonly stalled: string; // Why nothing can be created, or ''.
  readonly held: string; // Why creations wait, or ''.
  readonly blocked: string; // Why an update cannot go on, or ''.
  readonly behind: number; // Members that an update has yet to reach.
  readonly unwanted: number; // Creations without an answer that there is no room for any more.
  readonly notes: readonly string[]; // What a user should know, for the conditions' message.
  readonly revisions: Revisions;
  readonly withheld: string; // Why judged members are not replaced, or ''.
  readonly outage: Outage | undefined; // For Memory.
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
  readonly health: string;
  readonly reason: string;
  readonly since?: string;
  readonly claims: readonly string[];
}
/** One line of `status.retired`. */
export interface RetiredStatus {
  readonly identity: string;
  readonly reason: string;
  readonly message?: string; // The last words of its kubelet or container.
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
  known: ReadonlySet<string>,
  now: number,
  random: () => number,
): readonly string[] {
  const newest = youngest(known);
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

/** What a revision remembers of a template: what its hash is made of. */
const revisionTemplate = ({ metadata, spec }: V1PodTemplateSpec): V1PodTemplateSpec => ({
  ...((metadata?.labels || metadata?.annotations) && {
    metadata: {
      ...(metadata.labels && { labels: metadata.labels }),
      ...(metadata.annotations && { annotations: metadata.annotations }),
    },
  }),
  ...(spec && { spec }),
});
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

export const ourLabels = (cluster: string, identity: string): Dict => ({
  [MARK.cluster]: cluster,
  [MARK.identity]: identity,
});
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

/** Body of a member's pod at a revision. Child metadata comes from an allow-list: labels and
 *  annotations only. */
export function podBody(
  cluster: StatefulCluster,
  identity: string,
  revision: Revision,
  replaces: string | undefined,
  nodesReadable: boolean,
): Body {
  const { serviceName } = cluster.spec;
  const { template, claimTemplates: names } = revision;
  const name = podName(cluster.meta.name, identity);
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
    labels: podLabels(cluster, identity, revision),
    annotations: childAnnotations(template.metadata?.annotations, replaces),
    ownerReferences: [ownerOf(cluster)],
  };
  return { apiVersion: 'v1', kind: 'Pod', metadata, spec };
}

/** Bodies of a member's claims at a revision. An owner reference to the cluster is `whenDeleted:
 *  Delete`. */
export function claimBodies(
  cluster: StatefulCluster,
  identity: string,
  { claimTemplates: names }: Pick<Revision, 'claimTemplates'>,
  replaces: string | undefined,
): readonly Body[] {
  const owned = cluster.spec.persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete';
  const templates = cluster.spec.volumeClaimTemplates;
  return templates
    .filter((template) => names.includes(template.metadata?.name ?? ''))
    .map((template) => ({
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
/** Those that its pod mounts: a claim whose template is gone may outlive its use. */
const mountedClaims = ({ pod, claims }: Pick<Member, 'pod' | 'claims'>): readonly Claim[] =>
  pod ? claims.filter((c) => pod.claims.includes(c.meta.name)) : claims;
/** Ready now, or not Ready with a transition after the start: a pod's first Ready=False is written
 *  at its start. */
const wasReady = (pod: Pod): boolean =>
  pod.ready || (pod.readySinceMs ?? 0) > (pod.startedMs ?? Infinity) + 1000;
/** The pod has ended, or is about to, and will not come back. */
const hasEnded = (m: Member): boolean =>
  m.pod === undefined || isTerminating(m.pod) || isTerminal(m.pod);
/** Its claims were made, its pod never was: a creation that a crash cut short. */
export const isInterrupted = (m: Member): boolean =>
  m.gone && !m.retired && !m.between && m.claims.length > 0 && !m.claims.some(isBound);

/** What `enge.me/in-place` says of an update under way: the revision, and the containers that must
 *  restart with the IDs they had. Whatever else is written there names no revision. */
export function inPlaceOf(pod: Pod): { revision: string; containerIDs: Dict } | undefined {
  const text = pod.meta.annotations[MARK.inPlace];
  if (text === undefined) return undefined;
  try {
    const { revision, containerIDs } = JSON.parse(text) as Json;
    return { revision: String(revision), containerIDs: dictOf(containerIDs) };
  } catch {
    return { revision: '', containerIDs: {} }; // A hand wrote it, and the next update replaces it.
  }
}
/** The kubelet did what was asked: each container that must restart has another ID (an image string
 *  would not tell, and the generation is observed *before* the restart), cpu and memory are as in
 *  the spec, and the pod is Ready. */
export function isApplied(pod: Pod): boolean {
  const ids = Object.entries(inPlaceOf(pod)?.containerIDs ?? {});
  const restarted = ids.every(([name, old]) => (pod.containerIDs[name] ?? old) !== old);
  return restarted && pod.isObserved && pod.resize === '' && pod.ready;
}

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
  const first = m.claims.find((c) => c.selectedNode !== '')?.selectedNode; // Disks move later.
  return m.lastPod?.node || m.told?.node || (first ?? '');
}
/** What the node says of the member; `Healthy` where nothing is known. Between two pods a member is
 *  on no node: its volumes say where it can return to. */
export function viewNode(m: Member, nodes: Snapshot['nodes']): NodeView {
  const name = m.between && !m.pod ? '' : nodeNameOf(m);
  const node = nodes?.get(name);
  if (nodes === undefined || name === '') return { state: 'Healthy', sinceMs: undefined };
  if (node === undefined) return { state: 'Absent', sinceMs: undefined };
  if (node.outOfService) return { state: 'OutOfService', sinceMs: undefined };
  return { state: node.ready ? 'Healthy' : 'NotReady', sinceMs: node.readySinceMs };
}

/** The judgement of a former process, which saw how its pod ended; else the brake would not outlive
 *  its leader. */
const toldLoss = ({ told }: Member): Loss | undefined =>
  Object.values(NODE_DISRUPTIONS).find((r) => told?.health === 'Withheld' && r === told.reason);
/** What speaks about the node rather than about the pod; undefined on a healthy one. */
export function nodeEvidence(m: Member, node: NodeView): Omit<Suspicion, 'seconds'> | undefined {
  const told = toldLoss(m);
  if (told) return { reason: told, sinceMs: Date.parse(m.told?.since ?? '') || undefined };
  if (node.state === 'Absent') return { reason: 'NodeGone', sinceMs: undefined };
  if (node.state === 'NotReady') return { reason: 'NodeUnreachable', sinceMs: node.sinceMs };
  const last = m.pod ?? (m.between ? undefined : m.lastPod);
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
  const claimGoing = m.missing.length > 0 || mountedClaims(m).some(isTerminating);
  if (m.retired || (m.deletionIsOurs && (!pod || isTerminating(pod)))) {
    return { health: 'Terminating', sinceMs: pod?.meta.deletedMs ?? m.retired?.atMs ?? 0 };
  }
  if (!pod && !m.gone) return { health: 'Pending', sinceMs: 0 }; // Not known yet: plan asks.
  if (pod?.meta.annotations[MARK.replace] === 'true') return lost('ReplaceRequested', 0);
  if (node.state === 'OutOfService') return lost('NodeOutOfService', 0);
  // A member that is to return needs all its claims; a half-deleted one is never used.
  const returns = m.between || spec.replacementPolicy === 'WhenVolumesLost';
  if (!pod && claimGoing && returns) return lost('ClaimGone', 0);
  if (m.between) return undefined;
  if (nodeEvidence(m, node) === undefined) {
    if (!pod || isTerminating(pod)) return lost('PodDeleted', pod?.meta.deletedMs);
    if (isTerminal(pod)) return lost('PodFailed', pod.readySinceMs);
  }
  if (pod?.phase === 'Pending' && claimGoing) return lost('ClaimGone', 0);
  return undefined;
}

/** An update has changed the pod, or made it anew: that it is not Ready yet is no evidence. */
const isBeingChanged = ({ pod, claims }: Member): boolean =>
  (pod !== undefined && inPlaceOf(pod) !== undefined && !isApplied(pod)) ||
  recreationOf(claims) !== undefined;
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
  if (speaks) suspect(speaks.reason, toldLoss(m) ? 0 : nodeSeconds, speaks.sinceMs);
  if (m.volumesDownInMs === 0 || mountedClaims(m).some((c) => c.phase === 'Lost')) {
    suspect('VolumeLost', l.volumeLostSeconds);
  }
  if (!pod || pod.ready || hasEnded(m) || isBeingChanged(m)) return list;
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
  if (inPlaceOf(pod) && !isApplied(pod)) return { health: 'Updating', sinceMs };
  if (isAvailable(pod, spec.minReadySeconds, now)) return { health: 'Available', sinceMs };
  if (pod.ready) {
    const limitMs = spec.minReadySeconds * 1000;
    // No longer than the limit, should the clock be behind the one that wrote `sinceMs`.
    return { health: 'Ready', sinceMs, wakeMs: Math.min(limitMs, sinceMs + limitMs - now) };
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
// snapshot. Nothing here waits, reads a clock or draws by itself. In order: plan(), who is there
// and how each stands, the brake, endings, replicas, revisions, updates, claims, memory.

/** Decides. Idle when the cluster is being deleted (nothing is created after that), paused, or when
 *  its spec cannot work; the members are judged all the same, for the status. */
export function plan(s: Snapshot, now: number, random: () => number): Plan {
  const { meta, spec } = s.cluster;
  const { first, members, ask, brake } = planStandings(s, now);
  const r = revisionsOf(s, members);
  const evidence = evidenceOf(s, first);
  const stalled = s.denied || specProblem(s.cluster);
  const draft: Draft = {
    actions: [],
    ask: [],
    wakes: [...wakesOf(s, members, now), brake.wakeMs, s.denied ? LIMITS.retryMaxMs : Infinity],
    ...{ notes: [], held: '', blocked: '', unwanted: 0, behind: behindOf(s, members, r) },
  };
  const done = (judged: readonly Judged[]): Plan => ({
    ...draft,
    ask: uniqueRefs(draft.ask),
    members: judged,
    wakeMs: Math.max(100, Math.min(...draft.wakes.filter((ms) => ms > 0), Infinity)),
    ...{ evidence, stalled, revisions: r, withheld: brake.why, outage: brake.outage },
  });
  if (isTerminating(s.cluster)) return { ...done(members), wakeMs: Infinity };
  if (meta.annotations[MARK.paused] === 'true' || stalled !== '') return done(members);
  draft.ask.push(...ask);
  const released = planKeeping(s, draft);
  const settled = members.map((j): Judged => {
    if (!released.has(j.member.identity)) return j;
    return { member: j.member, verdict: lost('Released', 0), standing: 'letGo' };
  });
  draft.actions.push(...settled.flatMap((j) => planLeaving(s, j, now)));
  const isKnown = planHistory(s, draft, settled, r);
  // Adopted pods are counted when the cache shows them, and a pod names a revision that is there:
  // none is made or ended in the same pass.
  const adopts =
    draft.actions.some((a) => a.do === 'AdoptPod') ||
    draft.ask.some((ref) => ref.kind === 'statefulclusters');
  if (isKnown && !adopts) {
    planReplicas(s, draft, settled, r, now, random);
    if (spec.suspend) planSuspension(s, draft, settled, now);
    planUpdates(s, draft, settled, r, now);
  }
  planClaims(s, draft, settled);
  return done(settled);
}

/** What the leaves of plan() add to. */
interface Draft {
  readonly actions: Action[];
  readonly ask: Ref[];
  readonly wakes: number[]; // Look again after so many milliseconds.
  readonly notes: string[]; // What a user should know, for the conditions' message.
  readonly behind: number;
  held: string;
  blocked: string;
  unwanted: number;
}

/** Was all this read live in this pass? What was not is asked for. */
function readLive(s: Snapshot, draft: Draft, ...refs: readonly Ref[]): boolean {
  const open = refs.filter((ref) => !s.live.has(keyOfRef(ref)));
  draft.ask.push(...open);
  return open.length === 0;
}

const keyOfRef = (ref: Ref): string => `${ref.kind}/${ref.name}`;
const refOf = (kind: Ref['kind'], name: string): Ref => ({ kind, name });
const clusterRef = ({ cluster }: Snapshot): Ref => refOf('statefulclusters', cluster.meta.name);
const uniqueRefs = (refs: readonly Ref[]): readonly Ref[] => [
  ...new Map(refs.map((ref) => [keyOfRef(ref), ref])).values(),
];
/** When time alone changes what is known: verdicts, claims that settle, refusals to try again. */
function wakesOf(s: Snapshot, members: readonly Judged[], now: number): readonly number[] {
  const young = members.filter((j) => !j.member.pod && !j.member.gone && !isSettled(j.member, now));
  const settles = young.map(({ member }) =>
    Math.min(
      LIMITS.settleMs, // The clock may be behind.
      Math.max(...member.claims.map((c) => c.meta.createdMs + LIMITS.settleMs - now)),
    ),
  );
  const verdicts = members.map((j) => j.verdict.wakeMs ?? Infinity);
  const unplaced = members.flatMap(({ member: { pod } }) => (pod?.node === '' ? [pod] : []));
  const places = unplaced.map(({ meta }) => LIMITS.placeMs - Math.abs(now - meta.createdMs));
  const retries = [...s.memory.complaints.values()].map((c) => c.untilUptime - s.uptime);
  // A going pod that only a live GET showed, without our labels: no event will tell its end.
  const isHidden = (pod: Pod): boolean =>
    isTerminating(pod) && pod.meta.labels[MARK.cluster] !== s.cluster.meta.name;
  const hidden = [...s.pods.values()].some(isHidden) ? [LIMITS.settleMs] : [];
  return [...verdicts, ...settles, ...places, ...retries, ...hidden];
}

// ─── Who is there, and how each stands ───────────────────────────────────────────────────────────

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
  for (const identity of [...s.memory.lastPods.keys(), ...bareReturns(s).map((m) => m.identity)])
    at(identity);
  return [...found.keys()]
    .filter((identity) => identity !== '' && !foreign.has(identity))
    .filter((identity) => at(identity).pod || !s.memory.unfinished.has(podName(name, identity)))
    .sort(byAge)
    .map((identity) => {
      const { pod, claims } = at(identity);
      return memberOf(s, identity, pod, claims, now);
    });
}

/** A pod without claims that a former process let go of carries no mark; while it is going, the
 *  status may say so. It will not come back in any case. */
const isToldEnded = ({ cluster }: Snapshot, identity: string, pod: Pod | undefined): boolean =>
  pod !== undefined &&
  isTerminating(pod) &&
  (cluster.status.retired ?? []).some((r) => r.identity === identity);
/** Of its pod; of a member that this process never saw a pod of, what tells it from the others. */
const uidOf = ({ identity, pod, lastPod }: Pick<Member, 'identity' | 'pod' | 'lastPod'>): string =>
  (pod ?? lastPod)?.meta.uid ?? identity;
function memberOf(
  s: Snapshot,
  identity: string,
  pod: Pod | undefined,
  claims: Claim[],
  now: number,
): Member {
  // The pod before a restore is of another life.
  const isRestored = recreationOf(claims)?.uid === 'restored';
  const lastPod = pod || isRestored ? undefined : s.memory.lastPods.get(identity);
  const marked = claims.find((c) => c.meta.labels[MARK.retired] === 'true');
  const at = Date.parse(marked?.meta.annotations[MARK.retiredAt] ?? '');
  const expected = claimsExpected(s, { identity, pod, lastPod, claims });
  // One of another's, under its name, is as good as none: no next pod can have it.
  const isUsable = (c: Claim | undefined): boolean =>
    c !== undefined && (claims.includes(c) || (pod !== undefined && !isTerminating(c)));
  const absent = expected.filter((name) => !isUsable(s.claims.get(name)));
  const uid = uidOf({ identity, pod, lastPod });
  const unscheduled = pod && pod.node === '' && !isTerminating(pod) && !isTerminal(pod);
  const told = pod || lastPod ? [] : (s.cluster.status.members ?? []); // Only ever for patience.
  const allowed = unscheduled ? nodesAllowed(mountedClaims({ pod, claims }), s) : undefined;
  const limitMs = s.cluster.spec.liveness.nodeUnreachableSeconds * 1000;
  // A node that was not Ready for so long no longer counts as one that its volumes may use.
  const leftMs = (n: Node): number =>
    n.ready ? Infinity : Math.min(limitMs, (n.readySinceMs ?? now) + limitMs - now);
  return {
    identity,
    pod,
    lastPod,
    told: told.find((one) => one.identity === identity),
    gone: !pod && s.live.has(`pods/${podName(s.cluster.meta.name, identity)}`),
    claims,
    missing: absent.filter((name) => s.live.has(`persistentvolumeclaims/${name}`)),
    retired: marked && {
      reason: (marked.meta.annotations[MARK.retired] ?? 'Released') as Reason,
      policy: marked.meta.annotations[MARK.retiredPolicy] === 'Delete' ? 'Delete' : 'Retain',
      atMs: Number.isNaN(at) ? marked.meta.createdMs : at,
    },
    deletionIsOurs:
      s.memory.deletedUids.has(uid) ||
      (claims.length === 0 && isToldEnded(s, identity, pod ?? lastPod)),
    between: betweenPods(s, identity, pod, claims, lastPod),
    volumesDownInMs: allowed ? Math.max(0, ...allowed.map(leftMs)) : Infinity,
    restartsBefore: s.memory.restartsBefore.get(uid) ?? calmRestarts(pod),
  };
}

/** At first sight, the restarts of a pod that was Ready once are taken for old ones. */
const calmRestarts = (pod: Pod | undefined): number => (pod && wasReady(pod) ? pod.restarts : 0);
/** Is it between two pods? The mark on its claims says so, for the pod that goes or went; of a
 *  member without claims, what this process did, or the status of an earlier one. */
function betweenPods(
  s: Snapshot,
  identity: string,
  pod: Pod | undefined,
  claims: readonly Claim[],
  lastPod: Pod | undefined,
): Recreation | undefined {
  if (pod && !isTerminating(pod)) return undefined;
  const uid = (pod ?? lastPod)?.meta.uid;
  const mark = recreationOf(claims);
  if (mark) return uid === undefined || uid === mark.uid ? mark : undefined;
  const revision = s.memory.recreatedUids.get(uid ?? '');
  if (uid !== undefined && revision !== undefined) return { uid, revision, claims: [] };
  const told = uid === undefined && bareReturns(s).find((m) => m.identity === identity);
  return told ? { uid: '', revision: told.revision, claims: [] } : undefined;
}

/** Members without claims that the status alone knows to be between two pods. */
const bareReturns = ({ cluster: { status } }: Snapshot): readonly MemberStatus[] =>
  (status.members ?? []).filter(
    (m) => ['Recreating', 'Suspended'].includes(m.health) && m.claims.length === 0,
  );
/** `enge.me/recreating=<UID of the pod that goes> <revision of the next> <claims it has>`: the
 *  member will have a next pod on these claims. A claim that it never had is made then; one that it
 *  lost is not (I2). */
const recreationMark = ({ uid, revision, claims }: Recreation): Json => ({
  metadata: { annotations: { [MARK.recreating]: [uid, revision, ...claims].join(' ') } },
});
function recreationOf(claims: readonly Claim[]): Recreation | undefined {
  const mark = claims.map((c) => c.meta.annotations[MARK.recreating]).find(Boolean);
  const [uid = '', revision = '', ...names] = mark?.split(' ') ?? [];
  return mark === undefined ? undefined : { uid, revision, claims: names };
}
/** Claims that the member's pod mounts, or that its next pod would: only those of its identity. Of
 *  one between two pods the mark says which templates it had claims of; those that it never had are
 *  made then, unless another's has the name. */
function claimsExpected(
  s: Snapshot,
  { identity, pod, lastPod, claims }: Pick<Member, 'identity' | 'pod' | 'lastPod' | 'claims'>,
): readonly string[] {
  const { name } = s.cluster.meta;
  const had = (pod ?? lastPod)?.claims.filter((claim) => isClaimOf(claim, name, identity));
  const all = claimNames(s, identity);
  const isOthers = (c: Claim | undefined): boolean => c !== undefined && !claims.includes(c);
  const taken = pod ? [] : all.filter((claim) => isOthers(s.claims.get(claim)));
  return [...new Set([...(had ?? recreationOf(claims)?.claims ?? all), ...taken])];
}
const claimNames = ({ cluster: { meta, spec } }: Snapshot, identity: string): readonly string[] =>
  claimTemplateNames(spec).map((template) => claimName(template, meta.name, identity));

/** Final standings: who is let go now, who is withheld, and what must be read live before. */
function planStandings(s: Snapshot, now: number) {
  const first = membersOf(s, now).map((member): Judged => {
    const node = viewNode(member, s.nodes);
    const verdict = judge(member, node, s.cluster.spec, now, (key) => watchedMsOf(s, key));
    return { member, verdict, standing: firstStanding(s, member, verdict, now) };
  });
  const served = requestsServed(s, first, now);
  const brake = planBrake(s, first, served, now);
  const ask: Ref[] = first.flatMap((j) => questionsAbout(s, j, now));
  const available = first.filter((j) => j.verdict.health === 'Available');
  const others = available.map((j) => refOf('pods', podName(s.cluster.meta.name, idOf(j))));
  const members = first.map((j): Judged => {
    if (j.verdict.reason === 'ReplaceRequested' && j.standing === 'letGo') {
      // I5 rests on the others being Available, and on this one if it costs nothing: read live.
      const rests = [refOf('pods', podName(s.cluster.meta.name, idOf(j))), ...others];
      const unread = served.has(j.member.identity)
        ? rests.filter((ref) => !s.live.has(keyOfRef(ref)))
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

/** A first standing, before the brake. `undecided`: claims whose pod this process never saw may be
 *  a creation in flight, so they are left alone until they are a minute old. */
function firstStanding(s: Snapshot, m: Member, verdict: Verdict, now: number): Standing {
  if (verdict.health === 'Terminating') return 'condemned';
  const returns = s.cluster.spec.replacementPolicy === 'WhenVolumesLost';
  // A bound claim may be a member between two pods: it keeps its place until that is known.
  const waits = m.between || isSettled(m, now) || m.claims.some(isBound);
  if (!m.pod && !m.gone) return m.between ? 'returning' : waits ? 'live' : 'undecided';
  if (isInterrupted(m)) return m.lastPod ? 'letGo' : 'undecided';
  if (verdict.health === 'Lost') {
    if (endsIdentity(s, m, verdict.reason ?? 'PodDeleted'))
      return verdict.judged ? 'withheld' : 'letGo';
    return 'returning';
  }
  return m.between || (!m.pod && returns) ? 'returning' : 'live';
}

/** Does this loss end the identity, or does the member return under it (`WhenVolumesLost`)? */
function endsIdentity(s: Snapshot, m: Member, reason: Loss): boolean {
  const { replacementPolicy, volumeClaimTemplates } = s.cluster.spec;
  if (replacementPolicy === 'Always' || volumeClaimTemplates.length === 0) return true;
  // Nothing was ever written to its volumes, or it has none: an adopted pod.
  if (isInterrupted(m) || m.claims.length === 0) return true;
  switch (reason) {
    case 'PodDeleted':
    case 'PodFailed':
      return false;
    case 'NodeUnreachable':
      return m.pod !== undefined; // The object on a silent node will not go by itself.
    case 'NodeGone':
    case 'NodeOutOfService':
      return nodesAllowed(mountedClaims(m), s)?.length === 0; // Its volume is pinned there.
    default:
      return true;
  }
}

const isReady = (j: Judged): boolean => ['Ready', 'Available'].includes(j.verdict.health);
const isLive = (j: Judged): boolean => ['live', 'withheld', 'returning'].includes(j.standing);
const idOf = (j: Judged): string => j.member.identity;
/** Old enough, or seen with a pod, so that its absence means something. */
const isSettled = (m: Member, now: number): boolean =>
  m.lastPod !== undefined ||
  m.retired !== undefined ||
  m.claims.some((c) => c.selectedNode !== '') || // The scheduler has seen its pod.
  m.claims.every((c) => now - c.meta.createdMs >= LIMITS.settleMs);

/** Keys of all evidence in force. */
function evidenceOf(s: Snapshot, members: readonly Judged[]): readonly string[] {
  return members.flatMap(({ member: m, verdict }) => {
    const asked = verdict.reason === 'ReplaceRequested' ? [evidenceKey(m, verdict.reason)] : [];
    const found = suspicions(m, viewNode(m, s.nodes), s.cluster.spec);
    return [...asked, ...found.map((x) => evidenceKey(m, x.reason, x.sinceMs))];
  });
}

const watchedMsOf = (s: Snapshot, key: string): number =>
  s.uptime - (s.memory.firstSeen.get(key) ?? s.uptime);
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

/** Claims of its pod that the cache lacks, or shows as another's: absent, or not seen yet; none may
 *  be left unmarked. */
const unseenClaims = (s: Snapshot, m: Member): readonly Ref[] =>
  claimsExpected(s, m)
    .filter((name) => !m.claims.some((c) => c.meta.name === name))
    .map((name) => refOf('persistentvolumeclaims', name))
    .filter((ref) => !s.live.has(keyOfRef(ref)));

/** Pods that only the status tells of. Whoever strips our labels hides a pod from the watch, and
 *  one without claims from everything else: it is looked for before another takes its place. */
const unseenPods = (s: Snapshot): readonly Ref[] =>
  (s.cluster.status.members ?? [])
    .filter(({ pod, claims }) => pod !== '' && claims.length === 0 && !s.pods.has(pod))
    .map(({ pod }) => refOf('pods', pod));

/** What must be read live to know this member: absence of its pod, absence of a claim, a volume. */
function questionsAbout(s: Snapshot, j: Judged, now: number): readonly Ref[] {
  const { member: m, standing } = j;
  const { name } = s.cluster.meta;
  const refs: Ref[] = [];
  const freed = m.claims.some((c) => c.meta.annotations[MARK.retiredPolicy] === 'Delete');
  const rests = s.cluster.spec.suspend && m.between !== undefined; // Until resume or scale-in.
  const matters = standing === 'condemned' ? freed : isSettled(m, now) && !rests;
  if (!m.pod && matters) refs.push(refOf('pods', podName(name, m.identity)));
  const waits = m.pod ? m.pod.phase === 'Pending' : standing === 'returning';
  if ((waits && standing !== 'condemned') || standing === 'letGo') refs.push(...unseenClaims(s, m));
  if (j.verdict.reason === 'NodeOutOfService') refs.push(refOf('nodes', nodeNameOf(m)));
  // Where its volumes can be used matters to a pod that finds no node, and to one that may return.
  const isStuck = m.pod?.node === '' && Math.abs(now - m.pod.meta.createdMs) >= LIMITS.placeMs;
  const mayReturn =
    j.verdict.health === 'Lost' && s.cluster.spec.replacementPolicy === 'WhenVolumesLost';
  if (s.volumesReadable && s.nodes && (isStuck || mayReturn)) {
    const bound = m.claims.filter((c) => isBound(c) && !s.volumes.has(c.volume));
    refs.push(...bound.map((c) => refOf('persistentvolumes', c.volume)));
  }
  return refs.filter((ref) => !s.live.has(keyOfRef(ref)));
}

// ─── The brake, and requests ─────────────────────────────────────────────────────────────────────

/** The brake: while judged losses and replacements in flight exceed the limit, none is let go.
 *  So an outage of most nodes never makes a cluster give itself up, and the only copy is never
 *  judged. */
function planBrake(s: Snapshot, all: readonly Judged[], served: ReadonlySet<string>, now: number) {
  const { replicas } = s.cluster.spec;
  const judged = all.filter((j) => j.standing === 'withheld');
  // Nodes of one outage fall silent one by one: the first must not be judged as if it were alone.
  const isSuspect = (j: Judged): boolean =>
    j.verdict.reason === 'ReplaceRequested' && !served.has(idOf(j)) // It waits for its turn.
      ? nodeEvidence(j.member, viewNode(j.member, s.nodes)) !== undefined
      : j.standing !== 'withheld' && isLive(j) && j.verdict.suspected === true;
  const suspects = all.filter(isSuspect);
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
  if (judged.length > 0 && s.cluster.spec.suspend) {
    return { open: false, why: 'nobody is judged while suspended', wakeMs: Infinity, outage };
  }
  if (judged.length === 0 || (away + inFlight <= limit && !waits)) {
    return { open: true, why: '', wakeMs: Infinity, outage };
  }
  const who = judged.map((j) => `${j.member.identity} ${j.verdict.reason}`);
  const why = [
    `${judged.length} of ${replicas} members are judged lost (${fewNames(who)})`,
    ...(ended > 0 ? [`pods that have ended and will not return by themselves: ${ended}`] : []),
    ...(suspects.length > 0
      ? [`members beside them on nodes that are not Ready: ${suspects.length}`]
      : []),
    ...(inFlight > 0 ? [`replacements not yet Available: ${inFlight}`] : []),
    ...(waits ? ['others have just returned, so these are waited for'] : []),
    `at most ${limit} may be replaced at a time: when enough members return, when ` +
      `spec.liveness.maxReplacements is raised, or when a pod is annotated ${MARK.replace}=true`,
  ].join('; ');
  return { open: false, why, wakeMs: waits ? ms : Infinity, outage };
}

/** The brake's limit: `liveness.maxReplacements`, or max(1, ⌊(replicas−1)/2⌋), 0 at 1 replica. */
export function maxReplacementsOf(spec: Spec): number {
  const usual = spec.replicas <= 1 ? 0 : Math.max(1, Math.floor((spec.replicas - 1) / 2));
  const { maxReplacements } = spec.liveness;
  return maxReplacements === undefined
    ? usual
    : scaledValue(maxReplacements, spec.replicas, 'down');
}

/** Made for a judged loss, not yet Available, not itself Lost: the brake counts it. */
function isReplacementInFlight(j: Judged): boolean {
  const made = j.member.pod && predecessorOf(j.member.pod.meta);
  if (!made || !isOwnEnd(made.reason)) return false;
  return j.standing === 'live' && ['Pending', 'Starting', 'Ready'].includes(j.verdict.health);
}

const isJudged = (reason: string): boolean => JUDGEMENTS.some((r) => r === reason);
const isComeback = (reason: string): boolean => COMEBACKS.some((r) => r === reason);
const isReplaced = (reason: string): boolean => isJudged(reason) || FACTS.some((r) => r === reason);
/** The member ended by itself, or was judged: not by a request or a plain deletion. */
const isOwnEnd = (reason: string): boolean => reason === 'PodFailed' || isJudged(reason);
/** Identities that a user asked to replace and that may go now: I5 for those that are Ready, oldest
 *  request first; the others cost nothing. Available is told by a clock, so it sets nobody free. */
function requestsServed(s: Snapshot, all: readonly Judged[], now: number): ReadonlySet<string> {
  const { spec } = s.cluster;
  // One that is released in this pass is as good as gone.
  const staying = all.filter(({ member: { pod } }) => !pod || !isTakenOut(s, pod));
  const isUp = ({ member: { pod } }: Judged, seconds = 0): boolean =>
    pod !== undefined && isApplied(pod) && isAvailable(pod, seconds, now);
  const askedMs = (j: Judged): number => watchedMsOf(s, evidenceKey(j.member, 'ReplaceRequested'));
  const asked = staying.filter((j) => j.verdict.reason === 'ReplaceRequested');
  const up = asked.filter((j) => isUp(j)).sort((a, b) => askedMs(b) - askedMs(a));
  const others = staying.filter((j) => j.verdict.health === 'Available').length;
  const available = others + up.filter((j) => isUp(j, spec.minReadySeconds)).length;
  const spare = available - (spec.replicas - Math.max(1, maxUnavailableOf(spec)));
  const served = [...asked.filter((j) => !isUp(j)), ...up.slice(0, Math.max(0, spare))];
  return new Set(served.map((j) => j.member.identity));
}

/** Its user took the pod out of `spec.selector`; labels of ours that it lacks are put back. */
const isTakenOut = ({ cluster: { meta, spec } }: Snapshot, pod: Pod): boolean => {
  const ours = ourLabels(meta.name, identityOf(pod, meta.name));
  return !selectorMatches(spec.selector, { ...pod.meta.labels, ...ours });
};

// ─── Endings ─────────────────────────────────────────────────────────────────────────────────────

/** Ends those who are let go; what a crash left half-marked is marked as its sibling, and a pod
 *  re-made by a stale request goes. */
function planLeaving(s: Snapshot, j: Judged, now: number): readonly Action[] {
  const { retired } = j.member;
  const { whenLost } = s.cluster.spec.persistentVolumeClaimRetentionPolicy;
  if (j.standing === 'condemned' && retired) {
    return planEnd(s, j, retired.reason, retired.policy, now);
  }
  if (j.standing !== 'letGo') return [];
  const because = retired?.reason ?? j.verdict.reason ?? 'PodDeleted';
  const policy = because === 'Released' ? 'Retain' : (retired?.policy ?? whenLost);
  return planEnd(s, j, because, policy, now);
}

/** Ends identities: marks every claim (before the pod goes, so that a crash leaves no unmarked
 *  one), then deletes the pod. Unbound claims without a pod hold nothing and are deleted at
 *  once. */
function planEnd(
  s: Snapshot,
  j: Judged,
  because: Reason,
  policy: DataPolicy,
  now: number,
): readonly Action[] {
  const { pod, claims, gone } = j.member;
  const stays = j.verdict.reason === 'Released' || !pod || isTerminating(pod);
  const marks = claims
    .filter((c) => !isRetired(c))
    .map((claim): Action => {
      if (gone && !isBound(claim)) return { do: 'DeleteClaim', claim, because: 'Interrupted' };
      // What a former cluster of this name retained is not freed by the policy of this one.
      const older = claim.meta.createdMs < s.cluster.meta.createdMs;
      return retire(s, claim, because, older ? 'Retain' : policy, now);
    });
  const isSilent = stays && !marks.some((a) => a.do === 'RetireClaim') && because !== 'Released';
  const end = { do: 'EndMember', identity: idOf(j), uid: uidOf(j.member), because } as const;
  return [
    ...marks,
    ...(stays ? [] : [{ do: 'DeletePod', pod, because } as const]),
    ...(isSilent && j.standing !== 'condemned' ? [end] : []),
  ];
}

/** The mark of an ended identity. Retained data outlives the cluster, so its owner reference goes
 *  with the mark. */
function retire(
  s: Snapshot,
  claim: Claim,
  because: Reason,
  policy: DataPolicy,
  now: number,
): Action {
  const annotations = {
    [MARK.retired]: because,
    [MARK.retiredAt]: timeText(now),
    [MARK.retiredPolicy]: policy,
  };
  const free = policy === 'Retain' && { ownerReferences: othersOf(claim, s.cluster.meta) };
  const change = { metadata: { labels: { [MARK.retired]: 'true' }, annotations, ...free } };
  return { do: 'RetireClaim', claim, change, because };
}

const isRetired = (claim: Claim): boolean => claim.meta.labels[MARK.retired] === 'true';
const othersOf = ({ meta }: { meta: Meta }, { uid }: Meta): readonly Owner[] =>
  meta.owners.filter((o) => o.uid !== uid);
/** Deletes a pod that comes back: the mark on its claims goes first, so that a crash in between
 *  neither ends the member nor forgets which claims it had. */
function planRecreation(
  { member }: Judged,
  because: 'Recreated' | 'Suspended',
  revision: string,
): readonly Action[] {
  const { pod, claims } = member;
  if (!pod || isTerminating(pod)) return [];
  const { uid } = pod.meta;
  const change = recreationMark({ uid, revision, claims: claims.map((c) => c.meta.name).sort() });
  const isMarked = (c: Claim): boolean => {
    const mark = recreationOf([c]);
    return mark?.uid === uid && mark.revision === revision;
  };
  const marks = claims
    .filter((c) => !isMarked(c))
    .map((claim): Action => ({ do: 'MarkClaim', claim, change, because }));
  return [...marks, { do: 'DeletePod', pod, returnsAt: revision, because }];
}

/** Pods go, identities and claims stay: each comes back as itself on resume. */
function planSuspension(s: Snapshot, draft: Draft, members: readonly Judged[], now: number): void {
  const ordered = s.cluster.spec.podManagementPolicy === 'OrderedReady';
  const up = members.filter((j) => isLive(j) && j.member.pod && !hasEnded(j.member)).reverse();
  const leaves = members.some((j) => j.member.between && isGoing(j, now));
  const waits = ordered && (leaves || members.some((j) => isLeaving(j, now)));
  if (waits) draft.wakes.push(LIMITS.leavingMaxMs);
  const going = new Set(draft.actions.flatMap((a) => (a.do === 'DeletePod' ? [a.pod] : [])));
  const open = up.filter(({ member: { pod } }) => pod && !going.has(pod));
  const chosen = waits ? [] : open.slice(0, ordered ? 1 : Infinity);
  draft.actions.push(
    ...chosen.flatMap((j) => planRecreation(j, 'Suspended', revisionIn(j.member))),
  );
}

/** Adopt, relabel, release. Orphans that carry our labels and match are adopted after a live read
 *  of the cluster (Kubernetes' own adoption rule); a stripped label of ours is put back; a pod that
 *  its user took out of the selector is released with its data. Returns the released identities. */
function planKeeping(s: Snapshot, draft: Draft): ReadonlySet<string> {
  const { meta } = s.cluster;
  const released = new Set<string>();
  const retired = [...s.claims.values()].filter(isRetired);
  const ended = new Set(['', ...retired.map((c) => c.meta.labels[MARK.identity] ?? '')]);
  for (const pod of s.pods.values()) {
    if (isTerminating(pod)) continue;
    const identity = identityOf(pod, meta.name);
    const labels = ourLabels(meta.name, identity);
    const lacks = Object.entries(labels).some(([key, value]) => pod.meta.labels[key] !== value);
    const takenOut = isTakenOut(s, pod);
    const others = othersOf(pod, meta);
    const change = (fields: Json): { pod: Pod; change: Json } => ({
      pod,
      change: { metadata: fields },
    });
    if (isControlledBy(pod.meta, meta.uid)) {
      if (takenOut) {
        const ownerReferences = others;
        draft.actions.push({
          do: 'ReleasePod',
          ...change({ ownerReferences }),
          because: 'Released',
        });
        released.add(identity);
      } else if (lacks)
        draft.actions.push({ do: 'LabelPod', ...change({ labels }), because: 'Relabelled' });
    } else if (!hasController(pod.meta) && !takenOut && !lacks && !ended.has(identity)) {
      const ownerReferences = [...others, ownerOf(s.cluster)];
      if (readLive(s, draft, clusterRef(s)))
        draft.actions.push({ do: 'AdoptPod', ...change({ ownerReferences }), because: 'Adopted' });
    }
  }
  return released;
}

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

// ─── Replicas ────────────────────────────────────────────────────────────────────────────────────

/** Replicas: endings for the surplus, births for the deficit, one at a time under OrderedReady. */
function planReplicas(
  s: Snapshot,
  draft: Draft,
  members: readonly Judged[],
  r: Revisions,
  now: number,
  random: () => number,
): void {
  const { spec } = s.cluster;
  const live = members.filter(isLive);
  const ordered = spec.podManagementPolicy === 'OrderedReady';
  const step = ordered ? 1 : Infinity;
  const count = live.length + comingOf(s);
  const updated = live.filter((j) => !isOutdated(j, r.update)).length;
  const most = (up: number): number => spec.replicas + Math.min(maxSurgeOf(spec), draft.behind, up);
  const ceiling = most(updated); // One on its way may be of the surge, and updated:
  draft.unwanted = Math.min(comingOf(s), Math.max(0, count - most(updated + comingOf(s))));
  // What is on its way may never come: nobody goes for its sake.
  if (live.length > ceiling) {
    return planScaleIn(s, draft, members, live.length - ceiling, r, now);
  }
  const room = Math.max(0, spec.replicas - count);
  const beside = surgeOf(s, members, r);
  const isWanted = room + beside + comingOf(s) > 0 || live.some((j) => j.standing === 'returning');
  const hold = isWanted ? creationHold(s, draft, members, now) : NO_HOLD;
  const next = nextRevision(s, draft, members, r);
  const returns = planReturns(s, draft, members, next);
  if (ordered && members.some((j) => isComingUp(j, now) || isLeaving(j, now))) {
    return void draft.wakes.push(LIMITS.leavingMaxMs);
  }
  if (spec.suspend) return;
  if (room > 0 && !readLive(s, draft, ...unseenPods(s))) return;
  const back = hold.returns ? [] : returns;
  const restored = hold.births ? 0 : planRestores(s, draft, members, room);
  const missing = hold.births ? 0 : Math.min(room - restored, step);
  const surge = hold.births ? 0 : Math.min(beside, step - missing);
  const births = [
    ...planBirths(
      s,
      members,
      Array.from({ length: missing }, () => next()),
      'ScaledOut',
      now,
      random,
    ),
    ...planBirths(s, members, Array(Math.max(0, surge)).fill(r.update), 'Updated', now, random),
  ];
  draft.actions.push(...[...back, ...births].slice(0, step));
}

/** Creations without a definite answer are on their way: they have their place. */
const comingOf = (s: Snapshot): number =>
  [...s.memory.unfinished].filter((pod) => !s.pods.has(pod)).length;
/** Ends the surplus in the order of scale-in. */
function planScaleIn(
  s: Snapshot,
  draft: Draft,
  members: readonly Judged[],
  surplus: number,
  { update }: Revisions,
  now: number,
): void {
  const { spec } = s.cluster;
  const ordered = spec.podManagementPolicy === 'OrderedReady';
  // A stale cache must not shrink a cluster: the wish to is read live.
  if (!readLive(s, draft, clusterRef(s))) return;
  if (members.some((j) => ordered && isLeaving(j, now))) {
    return void draft.wakes.push(LIMITS.leavingMaxMs);
  }
  // Members whose pod is not known yet keep their place, and are not the ones to go.
  const live = members.filter(isLive);
  const unseen = live.filter((j) => !j.member.pod && !j.member.gone && j.member.between);
  const known = live.filter((j) => j.member.pod || j.member.gone);
  const pods = unseen.map((j) => refOf('pods', podName(s.cluster.meta.name, idOf(j))));
  if (!readLive(s, draft, ...pods)) return;
  const most = ordered ? 1 : Infinity;
  const count = Math.max(0, Math.min(surplus - (live.length - known.length), most));
  const leaving = scaleInOrder(known, update.hash).slice(0, count);
  const policy = spec.persistentVolumeClaimRetentionPolicy.whenScaled;
  draft.ask.push(...leaving.flatMap((j) => unseenClaims(s, j.member)));
  draft.actions.push(...leaving.flatMap((j) => planEnd(s, j, 'ScaledIn', policy, now)));
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
const isComingUp = ({ standing, verdict, member: { pod } }: Judged, now: number): boolean =>
  standing === 'live' &&
  pod !== undefined &&
  (verdict.health === 'Ready' || // For no longer than minReadySeconds.
    (['Pending', 'Starting'].includes(verdict.health) &&
      now - pod.meta.createdMs < LIMITS.bringUpMaxMs));

/** Its pod goes, and is not overdue. */
const isGoing = ({ member: { pod } }: Judged, now: number): boolean =>
  now < (pod?.meta.deletedMs ?? 0) + LIMITS.leavingMaxMs;
const isLeaving = (j: Judged, now: number): boolean =>
  j.standing === 'condemned' && isGoing(j, now);
/** New members for the deficit. Each names the loss it replaces; the rest are ScaledOut, or the
 *  surge of an update. */
function planBirths(
  s: Snapshot,
  members: readonly Judged[],
  revisions: readonly Revision[],
  because: 'ScaledOut' | 'Updated',
  now: number,
  random: () => number,
): readonly Creation[] {
  const known = identitiesOf(s);
  const losses = because === 'Updated' ? [] : lossesToReplace(s, members, now);
  const drawn = allocate(revisions.length, known, now, random);
  return drawn.map((identity, i): Creation => {
    const loss = losses[i];
    const birth = birthOf(s, identity, revisions[i] as Revision, loss && loss.join(' '));
    if (!loss) return { do: 'CreateMember', birth, because };
    return { do: 'CreateMember', birth, replaces: loss[0], because: loss[1] };
  });
}

const birthOf = (
  s: Snapshot,
  identity: string,
  revision: Revision,
  replaces: string | undefined,
): Birth => ({
  identity,
  pod: podBody(s.cluster, identity, revision, replaces, s.nodes !== undefined),
  claims: claimBodies(s.cluster, identity, revision, replaces),
});

/** Every identity of which there is a trace, released and retired ones too. */
function identitiesOf(s: Snapshot): ReadonlySet<string> {
  const pods = [...s.pods.values()].map((pod) => identityOf(pod, s.cluster.meta.name));
  const claims = [...s.claims.values()].map((c) => c.meta.labels[MARK.identity] ?? '');
  const coming = [...s.memory.unfinished].map((name) => name.slice(s.cluster.meta.name.length + 1));
  const { lastPods, newest } = s.memory;
  const others = [...lastPods.keys(), newest, s.cluster.status.newestIdentity ?? ''];
  return new Set([...pods, ...claims, ...coming, ...others]);
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
  // Without surge the successor comes after the old one went, so it can name it.
  const follows = (reason: string): boolean =>
    reason === 'Updated' && maxSurgeOf(s.cluster.spec) === 0;
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
    .filter(([identity, reason]) => !named.has(identity) && (isReplaced(reason) || follows(reason)))
    .sort(([a], [b]) => byAge(a, b));
}

/** Who replaces whom: identity → its successor, as pods and claims record it. */
function successors(s: Snapshot): Map<string, string> {
  const found = new Map<string, string>();
  for (const { meta } of [...s.pods.values(), ...s.claims.values()]) {
    const old = predecessorOf(meta);
    const heir = meta.labels[MARK.identity] ?? '';
    const known = old && found.get(old.identity);
    // Two processes that overlapped may both have made one: the older counts, for either of them.
    if (old && (known === undefined || byAge(heir, known) < 0)) found.set(old.identity, heir);
  }
  return found;
}

/** A member between two pods gets its next pod on its own claims, once its object is gone (I1). One
 *  that ends again and again returns ever more slowly. */
function planReturns(
  s: Snapshot,
  draft: Draft,
  members: readonly Judged[],
  next: (back: Member) => Revision,
): readonly Creation[] {
  return members.flatMap(({ member, standing }): Creation[] => {
    if (standing !== 'returning') return [];
    const { pod, gone, identity, between } = member;
    if (pod && isTerminal(pod) && !isTerminating(pod)) {
      draft.actions.push({ do: 'DeletePod', pod, because: 'Returned' });
    }
    if (!gone || member.missing.length > 0 || s.cluster.spec.suspend) return [];
    assert(pod === undefined, 'I1: a member returns only once its former pod object is gone');
    const last = s.memory.returns.get(identity);
    const wait = last && !between ? last.atUptime + doubled(last.times) - s.uptime : 0;
    if (wait > 0) draft.wakes.push(wait);
    const has = new Set(member.claims.map((c) => c.meta.name));
    // Another process may have ended it meanwhile, or made what it never had: its claims say so.
    const names = new Set([...has, ...claimNames(s, identity)]);
    const refs = [...names].map((claim) => refOf('persistentvolumeclaims', claim));
    if (wait > 0 || !readLive(s, draft, ...refs)) return [];
    const birth = birthOf(s, identity, next(member), undefined);
    const claims = birth.claims.filter((c) => !has.has(c.metadata.name));
    const because = between ? 'Recreated' : 'Returned';
    return [{ do: 'CreateMember', birth: { ...birth, claims }, because }];
  });
}

const isWantedBack = ({ claims }: Member): boolean =>
  claims.some((c) => c.meta.annotations[MARK.restore] === 'true');
/** Retired claims that a user wants back, by identity, oldest first. The identity lives again as
 *  the next member that there is room for; all claims that its pod had must be there. */
function planRestores(s: Snapshot, draft: Draft, members: readonly Judged[], room: number): number {
  const wanted = members.filter(({ member }) => member.retired && isWantedBack(member));
  const back = wanted.filter(({ member: m }) => {
    const pod = refOf('pods', podName(s.cluster.meta.name, m.identity));
    return (
      !m.pod &&
      readLive(s, draft, pod, ...unseenClaims(s, m)) &&
      m.missing.length === 0 &&
      m.claims.every((c) => isBound(c) && !isTerminating(c))
    );
  });
  const later = back.slice(room).map(idOf);
  if (later.length > 0) draft.notes.push(`to be restored once there is room: ${fewNames(later)}`);
  const marks = [MARK.retired, MARK.retiredAt, MARK.retiredPolicy, MARK.restore];
  const cleared = Object.fromEntries(marks.map((key) => [key, null]));
  for (const { member: m } of back.slice(0, room)) {
    const claims = m.claims.map((c) => c.meta.name).sort();
    const annotations = { ...cleared, [MARK.recreating]: ['restored', '', ...claims].join(' ') };
    const change = { metadata: { labels: { [MARK.retired]: null }, annotations } };
    for (const claim of m.claims)
      draft.actions.push({ do: 'RestoreClaim', claim, change, because: 'Restored' });
  }
  return Math.min(room, back.length);
}

/** Why creations wait, and how long: the API server's refusal holds all of them, members that keep
 *  ending early hold new identities. */
function creationHold(s: Snapshot, draft: Draft, members: readonly Judged[], now: number) {
  const { refusal } = s.memory;
  const isAsItWas =
    refusal?.generation === s.cluster.meta.generation && s.pods.size >= refusal.pods;
  const refusedMs = refusal && isAsItWas ? refusal.untilUptime - s.uptime : 0;
  const earlyMs = earlyEndHoldMs(earlyEnds(s, members, now), now);
  draft.wakes.push(...[refusedMs, earlyMs].filter((ms) => ms > 0));
  if (refusal && refusedMs > 0) draft.held = refusal.message;
  else if (earlyMs > 0) draft.held = 'new members keep ending soon after their creation';
  return { returns: refusedMs > 0, births: refusedMs > 0 || earlyMs > 0 };
}

const NO_HOLD = { returns: false, births: false } as const;
/** Members that ended by themselves soon after their birth, newest last: a broken template must not
 *  burn through identities. Durable (marks and status), so the same after a restart; what this
 *  process did counts even if neither is left to tell. */
function earlyEnds(s: Snapshot, members: readonly Judged[], now: number): readonly number[] {
  const ends = new Map<string, { reason: string; atMs: number }>(s.memory.ends);
  for (const r of s.cluster.status.retired ?? []) {
    ends.set(r.identity, { reason: r.reason, atMs: Date.parse(r.at) });
  }
  for (const { member, verdict, standing } of members) {
    const ending = standing === 'letGo' && { reason: verdict.reason ?? '', atMs: now };
    const end = member.retired ?? ending;
    if (end) ends.set(member.identity, end);
  }
  return (
    [...ends]
      // A claim that goes before its pod runs is taken for the same.
      .filter(([, end]) => isOwnEnd(end.reason) || end.reason === 'ClaimGone')
      .filter(([id, end]) => birthSecond(id) >= 0 && end.atMs - birthMs(id) <= LIMITS.earlyEndMs)
      .map(([, end]) => end.atMs)
      .filter((atMs) => atMs <= now) // Written while a clock was ahead: no hold may last that long.
      .sort((a, b) => a - b)
  );
}

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

/** 10 s doubling to 5 min. */
const doubled = (times: number): number =>
  Math.min(LIMITS.backoffMinMs * 2 ** Math.min(times - 1, 10), LIMITS.backoffMaxMs);

// ─── Revisions ───────────────────────────────────────────────────────────────────────────────────

/** The update revision, and the one that most of the other live members have. */
function revisionsOf(s: Snapshot, members: readonly Judged[]): Revisions {
  const { update, collisionCount } = updateRevisionOf(s.cluster, s.revisions);
  const counts = new Map<string, number>();
  for (const { member } of members.filter(isLive)) {
    const hash = goalOf(member);
    if (hash !== update.hash) counts.set(hash, (counts.get(hash) ?? 0) + 1);
  }
  const ours = [...s.revisions.values()].filter((x) => isControlledBy(x.meta, s.cluster.meta.uid));
  // Where all are lost at once, the status knows what those had that a pause or partition keeps.
  const { spec, status } = s.cluster;
  const told = spec.replicas > 0 && !members.some(isLive) ? status.currentRevision : undefined;
  const older = ours.filter((x) => counts.has(x.hash) || x.hash === told);
  const rank = (x: Revision): number => (counts.get(x.hash) ?? 0) + x.number / 1e9;
  older.sort((a, b) => rank(b) - rank(a));
  return { update, current: withLaterClaims(s, older[0] ?? update), collisionCount };
}
/** With the claim templates that came after its template, which mounts them. */
function withLaterClaims({ cluster }: Snapshot, r: Revision): Revision {
  const { containers, initContainers, volumes = [] } = r.template.spec ?? {};
  const mounts = JSON.stringify([containers, initContainers]);
  const later = claimTemplateNames(cluster.spec).filter(
    (name) => mounts.includes(`"name":"${name}"`) && !volumes.some((v) => v.name === name),
  );
  return { ...r, claimTemplates: unique([...r.claimTemplates, ...later]) };
}

/** The history of templates: the update revision is made before a pod names it, orphans are
 *  adopted as pods are, and the oldest that no pod uses go beyond the limit. True when the update
 *  revision is there. */
function planHistory(
  s: Snapshot,
  draft: Draft,
  members: readonly Judged[],
  { update, current }: Revisions,
): boolean {
  const { meta, spec } = s.cluster;
  const { actions } = draft;
  const all = [...s.revisions.values()];
  const orphans = all.filter(
    (x) => !hasController(x.meta) && x.meta.labels[MARK.cluster] === meta.name,
  );
  if (orphans.length > 0) {
    if (!readLive(s, draft, clusterRef(s))) return false;
    for (const revision of orphans) {
      const change = {
        metadata: { ownerReferences: [...revision.meta.owners, ownerOf(s.cluster)] },
      };
      actions.push({ do: 'ReviseRevision', revision, change, because: 'Adopted' });
    }
    return false;
  }
  if (update.meta.uid === '') {
    const body = revisionBody(s.cluster, update);
    if (readLive(s, draft, refOf('controllerrevisions', update.meta.name)))
      actions.push({ do: 'CreateRevision', revision: update, body, because: 'Revised' });
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
    actions.push({ do: 'ReviseRevision', revision: update, change, because: 'Revised' });
  }
  const named = members.flatMap(({ member }) => [revisionIn(member), goalOf(member)]);
  const used = new Set([update.hash, current.hash, ...named]);
  const spare = ours.filter((x) => !used.has(x.hash)).sort((a, b) => a.number - b.number);
  const surplus = Math.max(0, spare.length - spec.revisionHistoryLimit);
  for (const revision of spare.slice(0, surplus))
    actions.push({ do: 'DeleteRevision', revision, because: 'Revised' });
  return true;
}

/** The revision of the next member: the current one while fewer than `partition` live members have
 *  it, or as long as updates are paused; else the update revision. One that comes back keeps its
 *  own in the same way. A new member needs a claim of each template of its revision. */
function nextRevision(s: Snapshot, draft: Draft, members: readonly Judged[], r: Revisions) {
  const { rollingUpdate } = s.cluster.spec.updateStrategy;
  const kept = rollingUpdate.paused ? Infinity : partitionOf(s.cluster.spec);
  const older = members.filter((j) => isLive(j) && goalOf(j.member) === r.current.hash).map(idOf);
  const names = claimTemplateNames(s.cluster.spec);
  const gone = r.current.claimTemplates.find((name) => !names.includes(name));
  return (back?: Member): Revision => {
    if (r.current.hash === r.update.hash) return r.update;
    const rank = older.indexOf(back?.identity ?? '');
    if (rank < 0 && goalOf(back) === r.update.hash) return r.update;
    if ((rank < 0 ? older.length : rank) >= kept) return r.update;
    if (rank < 0 && gone !== undefined) {
      const why = `the claim template ${gone} of revision ${r.current.hash} is gone`;
      draft.notes.push(`new members get revision ${r.update.hash}: ${why}`);
      return r.update;
    }
    if (rank < 0) older.push('');
    return r.current;
  };
}

/** The revision that the member has, is being changed to, or comes back at, or ''. */
function goalOf(m: Member | undefined): string {
  const pod = m?.pod ?? m?.lastPod;
  if (m?.between) return m.between.revision;
  return pod ? (inPlaceOf(pod)?.revision ?? pod.meta.labels[MARK.revision] ?? '') : '';
}
/** The bare hash that the member's pod carries, or ''. */
const revisionIn = ({ pod }: Member): string => pod?.meta.labels[MARK.revision] ?? '';
/** Does a template that its pod was made of, or is being changed to, differ by hash? A changed
 *  field may still be what the living pod has anyway; that is seen when its turn comes. */
function isOutdated(j: Judged, { hash }: Revision): boolean {
  const { pod } = j.member;
  if (!pod || !isLive(j) || hasEnded(j.member)) return false;
  return (inPlaceOf(pod)?.revision ?? revisionIn(j.member)) !== hash;
}

/** Members that stay at their revision: a percentage rounds up. */
const partitionOf = (spec: Spec): number =>
  scaledValue(spec.updateStrategy.rollingUpdate.partition, spec.replicas, 'up');
/** Members that an update has yet to reach. */
function behindOf(
  { cluster: { spec } }: Snapshot,
  members: readonly Judged[],
  r: Revisions,
): number {
  if (spec.updateStrategy.type === 'OnDelete' || spec.suspend) return 0;
  const outdated = members.filter((j) => isOutdated(j, r.update));
  const bound = outdated.filter(runsOnGoingClaim); // They are left alone.
  return Math.max(0, outdated.length - Math.max(bound.length, partitionOf(spec)));
}

// ─── Updates ─────────────────────────────────────────────────────────────────────────────────────

/** Brings outdated members to the update revision, within the budget. */
function planUpdates(
  s: Snapshot,
  draft: Draft,
  members: readonly Judged[],
  r: Revisions,
  now: number,
): void {
  const { spec } = s.cluster;
  const { rollingUpdate, type } = spec.updateStrategy;
  const zero = scaledValue(rollingUpdate.maxUnavailable, spec.replicas, 'down') === 0;
  if (zero && maxUnavailableOf(spec) === 1)
    draft.notes.push('maxUnavailable comes to 0 without surge, so 1 is used');
  const isShrinking = draft.actions.some((a) => a.because === 'ScaledIn');
  const rolls = type === 'RollingUpdate' && !rollingUpdate.paused && !spec.suspend;
  if (rolls && !isShrinking) {
    const fit = members.filter((j) => isUpdatable(j, r));
    const bound = members.filter((j) => isOutdated(j, r.update) && runsOnGoingClaim(j)).map(idOf);
    if (bound.length > 0)
      draft.notes.push(`not updated, for its claim is being deleted: ${fewNames(bound)}`);
    const stuck = members.filter((j) => isStuck(spec, j));
    const open = [...(draft.behind > 0 ? fit : []), ...stuck].reverse();
    const labels = planLabels(s, draft, open, r);
    const others = open.filter((j) => !labels.has(j));
    const chosen = chooseOutdated(s, draft, members, others, r, now);
    const [first] = [...labels.keys(), ...chosen];
    if (first && passesTrial(s, draft, r, first)) {
      draft.actions.push(...labels.values());
      for (const j of chosen) updateMember(s, draft, j, members, chosen, r, now);
    }
  }
  const going = new Set(draft.actions.flatMap((a) => (a.do === 'DeletePod' ? [a.pod] : [])));
  for (const { member } of members.filter(isLive)) {
    if (member.pod && !going.has(member.pod)) planFinish(s, draft, member, member.pod);
  }
}

/** Without its pod, its claim would be gone. */
const runsOnGoingClaim = (j: Judged): boolean =>
  isReady(j) && mountedClaims(j.member).some(isTerminating);
/** May an update touch it? A member whose node speaks against it could not come back; one that is
 *  withheld for what its pod says may be healed by a new template; a claim that is being deleted
 *  lasts as long as its pod. */
function isUpdatable(j: Judged, { update }: Revisions): boolean {
  const { verdict, standing } = j;
  if (!isOutdated(j, update) || verdict.suspected) return false;
  if (runsOnGoingClaim(j)) return false;
  const ofPod: readonly string[] = ['Unready', 'StartupTimeout', 'CrashLoop'];
  return standing === 'live' || (standing === 'withheld' && ofPod.includes(verdict.reason ?? ''));
}
/** Its node can never give it what it was resized to; the user said how else to update it. */
const isStuck = (
  { updateStrategy: { rollingUpdate } }: Spec,
  { member, standing }: Judged,
): boolean =>
  standing === 'live' &&
  (member.pod?.resize.startsWith('Infeasible') ?? false) &&
  !rollingUpdate.podUpdatePolicy.startsWith('InPlace');

/** Those that only lack labels are patched all at once: it takes nobody down. */
function planLabels(
  s: Snapshot,
  draft: Draft,
  open: readonly Judged[],
  r: Revisions,
): ReadonlyMap<Judged, Action> {
  const found = new Map<string, readonly Change[] | undefined>();
  const labelsFor = (pod: Pod): readonly Change[] | undefined => {
    const hash = pod.meta.labels[MARK.revision] ?? '';
    const base = revisionBy(s, hash);
    if (!base || inPlaceOf(pod)) return undefined;
    if (!found.has(hash)) {
      const changes = changesBetween(s, base, r.update);
      const isLabel = (c: Change): boolean => c.path[1] === 'labels' && isInPlace(c, r.update, '');
      found.set(hash, changes.every(isLabel) ? changes : undefined);
    }
    return found.get(hash);
  };
  const patches = open.slice(0, draft.behind).flatMap((j): [Judged, Action][] => {
    const { pod } = j.member;
    const changes = pod && labelsFor(pod);
    return changes ? [[j, planInPlace(s, pod, changes, r)]] : [];
  });
  return new Map(patches);
}

/** Who is updated now. Those that are not Ready cost nothing (but a Replace: their identities), so
 *  a broken update heals; of the Ready ones, the youngest while enough others are Available
 *  (I5). */
function chooseOutdated(
  s: Snapshot,
  draft: Draft,
  members: readonly Judged[],
  open: readonly Judged[],
  r: Revisions,
  now: number,
): readonly Judged[] {
  const { spec } = s.cluster;
  const up = members.filter((j) => isLive(j) && j.verdict.health === 'Available');
  const spare = up.length - (spec.replicas - maxUnavailableOf(spec));
  const well = open.filter(isReady).slice(0, Math.max(0, spare));
  const fresh = draft.actions.filter((a) => a.do === 'CreateMember').length;
  const replaces = spec.updateStrategy.rollingUpdate.podUpdatePolicy === 'Replace';
  const room = replaces ? Math.max(0, replaceRoom(s, members, r) - fresh) : Infinity;
  const ordered = spec.podManagementPolicy === 'OrderedReady';
  const isBusy = (j: Judged): boolean =>
    !open.includes(j) &&
    (isComingUp(j, now) || isLeaving(j, now) || j.standing === 'returning' || isChanging(j));
  if (ordered && (fresh > 0 || members.some(isBusy))) return [];
  const most = Math.min(Math.max(draft.behind, 1), room, ordered ? 1 : Infinity);
  return [...open.filter((j) => !isReady(j)), ...well].slice(0, most);
}
const isChanging = (j: Judged): boolean => j.verdict.health === 'Updating';

/** One member, as its policy says. What cannot be done in place falls back, or is reported. */
function updateMember(
  s: Snapshot,
  draft: Draft,
  j: Judged,
  members: readonly Judged[],
  chosen: readonly Judged[],
  r: Revisions,
  now: number,
): void {
  const { pod } = j.member;
  const { whenReplaced } = s.cluster.spec.persistentVolumeClaimRetentionPolicy;
  const policy = s.cluster.spec.updateStrategy.rollingUpdate.podUpdatePolicy;
  if (!pod || !readLive(s, draft, refOf('pods', pod.meta.name))) return;
  const changes = changesFor(s, pod, r);
  const isForced = isStuck(s.cluster.spec, j);
  if (changes.length === 0 && !isForced) return void draft.actions.push(planInPlace(s, pod, [], r));
  // I5 rests on the others being Available: that is read live before this one is taken down.
  const relied = members.filter((o) => !chosen.includes(o) && o.verdict.health === 'Available');
  const refs = relied.map((o) => refOf('pods', podName(s.cluster.meta.name, idOf(o))));
  if (isReady(j) && !readLive(s, draft, ...refs.slice(0, LIMITS.liveReadsMax))) return;
  const refused = s.memory.complaints.get(`pods/${pod.meta.name}`);
  const holds = refused?.request === r.update.hash && s.uptime < refused.untilUptime;
  const words = holds ? refused.message : '';
  const stuck = changes.filter((c) => !isInPlace(c, r.update, policy));
  if (policy.startsWith('InPlace') && stuck.length === 0 && words === '') {
    draft.actions.push(planInPlace(s, pod, changes, r));
  } else if (policy === 'InPlaceOnly') {
    const where = fewNames(stuck.map((c) => c.path.join('.')));
    draft.blocked = words || `podUpdatePolicy is InPlaceOnly, and ${where} cannot change in place`;
  } else if (readLive(s, draft, ...unseenClaims(s, j.member))) {
    const end = (): readonly Action[] => planEnd(s, j, 'Updated', whenReplaced, now);
    const again = (): readonly Action[] => planRecreation(j, 'Recreated', r.update.hash);
    draft.actions.push(...(policy === 'Replace' ? end() : again()));
  }
}

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
  if (type === 'OnDelete' || r.podUpdatePolicy !== 'Replace') return 0;
  return scaledValue(r.maxSurge, spec.replicas, 'up');
}

/** New members to make beside the old ones now. */
function surgeOf(s: Snapshot, members: readonly Judged[], r: Revisions): number {
  const { spec } = s.cluster;
  const behind = behindOf(s, members, r);
  if (spec.updateStrategy.rollingUpdate.paused) return 0;
  const beside = Math.max(0, members.filter(isLive).length + comingOf(s) - spec.replicas);
  const wanted = Math.min(maxSurgeOf(spec), behind) - beside;
  return Math.max(0, Math.min(wanted, replaceRoom(s, members, r)));
}

/** Under Replace at most so many more members may be under way to the update revision. */
function replaceRoom(s: Snapshot, members: readonly Judged[], r: Revisions): number {
  const { spec } = s.cluster;
  const most = Math.max(1, maxUnavailableOf(spec) + maxSurgeOf(spec));
  const count = members.filter(isLive).length + comingOf(s);
  const missing = Math.max(0, spec.replicas - count);
  return Math.max(0, most - notYet(members, r) - comingOf(s) - missing);
}

/** Members made for an update, or made again by it, that are not Available yet. */
const notYet = (members: readonly Judged[], { update }: Revisions): number =>
  members.filter((j) => isLive(j) && !isOutdated(j, update) && j.verdict.health !== 'Available')
    .length;

/** Would the API server take a pod of the update revision? It is asked under the name of a living
 *  member, for AlreadyExists comes last, and again while it objects. A full quota is no objection
 *  where the member that goes leaves as much room as the next needs. */
function passesTrial(
  s: Snapshot,
  draft: Draft,
  { update }: Revisions,
  { member }: Judged,
): boolean {
  const ref = refOf('trials', update.hash);
  const told = s.memory.complaints.get(keyOfRef(ref));
  const body = podBody(s.cluster, member.identity, update, undefined, s.nodes !== undefined);
  if (!told || s.uptime >= told.untilUptime) {
    readLive(s, draft, { ...ref, body });
    return false;
  }
  const made = revisionBy(s, revisionIn(member));
  const changes = changesOf(made?.template.spec, update.template.spec);
  const sameSize = !changes.some((c) => c.path.includes('resources'));
  if (told.message === '' || (told.message.includes('exceeded quota') && sameSize)) return true;
  if (told.isPassing) draft.notes.push(`the trial of ${update.hash} failed: ${told.message}`);
  else draft.blocked = told.message;
  return false;
}

/** What an update leaves to do: the revision label is written last, once the pod is as it should be
 *  in place; the mark on the claims of one that came back goes when it is Ready. */
function planFinish(s: Snapshot, draft: Draft, { identity, claims }: Member, pod: Pod): void {
  const inPlace = inPlaceOf(pod);
  const touched = draft.actions.some((a) => 'pod' in a && a.pod === pod);
  if (inPlace && !touched && isApplied(pod)) {
    const labels = { [MARK.revision]: inPlace.revision };
    const change = { metadata: { labels, annotations: { [MARK.inPlace]: null } } };
    draft.actions.push({ do: 'LabelPod', pod, change, because: 'Revised' });
  }
  if (inPlace && pod.resize.startsWith('Infeasible')) {
    draft.blocked ||= `${identity} cannot be resized on its node (${pod.resize})`;
  }
  if (!pod.ready || isTerminating(pod)) return;
  const marked = claims.filter((c) => c.meta.annotations[MARK.recreating] !== undefined);
  // A mark for this very pod says that it was to go: a stale cache may not know that it did.
  const isOwn = marked.some((c) => recreationOf([c])?.uid === pod.meta.uid);
  if (isOwn && !readLive(s, draft, refOf('pods', pod.meta.name))) return;
  const change = { metadata: { annotations: { [MARK.recreating]: null } } };
  for (const claim of marked)
    draft.actions.push({ do: 'MarkClaim', claim, change, because: 'Revised' });
}

// ─── What changes, and how ───────────────────────────────────────────────────────────────────────

const revisionBy = (s: Snapshot, hash: string): Revision | undefined =>
  [...s.revisions.values()].find((r) => r.hash === hash);
/** Where the pods of two revisions differ; of an unknown one, everything may. */
function changesBetween(s: Snapshot, base: Revision | undefined, to: Revision): readonly Change[] {
  const whole = (r: Revision | undefined): Json => ({
    metadata: {
      labels: r && templateLabels(s.cluster, r.template),
      annotations: withoutOurs(r?.template.metadata?.annotations),
    },
    spec: r?.template.spec,
  });
  return changesOf(whole(base), whole(to));
}
/** What the living pod lacks of the update revision: where that differs from the revision it was
 *  made of, and from the one it is just being changed to. */
function changesFor(s: Snapshot, pod: Pod, { update }: Revisions): readonly Change[] {
  const body = s.bodies.get(pod.meta.name);
  const hashes = [pod.meta.labels[MARK.revision] ?? '', inPlaceOf(pod)?.revision];
  const bases = unique(hashes.filter((hash) => hash !== undefined));
  const found = bases.flatMap((hash) => changesBetween(s, revisionBy(s, hash), update));
  const living = (path: readonly string[]): unknown =>
    path.reduce<unknown>((at, key) => fieldsOf(at)?.[key], body);
  return [...new Map(found.map((c) => [c.path.join('/'), c])).values()].filter(
    ({ path, value }) => !isMet(living(path), value, path),
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
  ...{ restartPolicy: 'Always', dnsPolicy: 'ClusterFirst', schedulerName: 'default-scheduler' },
  ...{ terminationGracePeriodSeconds: 30, serviceAccountName: 'default', securityContext: {} },
  ...{ enableServiceLinks: true, hostNetwork: false },
};
const INNER_DEFAULTS: Json = {
  ...{ imagePullPolicy: 'IfNotPresent', protocol: 'TCP', terminationMessagePolicy: 'File' },
  ...{ terminationMessagePath: '/dev/termination-log', scheme: 'HTTP', defaultMode: 420 },
  ...{ timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 },
  ...{ readOnly: false, stdin: false, tty: false, securityContext: {}, apiVersion: 'v1' },
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

/** The patches for changes that can be made in place. `enge.me/in-place` names the containers that
 *  must restart; one whose image is back at what it runs need not. */
function planInPlace(s: Snapshot, pod: Pod, changes: readonly Change[], r: Revisions): Action {
  const metadata = (field: string): Json =>
    Object.fromEntries(
      changes.filter((c) => c.path[1] === field).map((c) => [c.path[2], c.value ?? null]),
    );
  const images = changes.filter((c) => c.path[3] === 'image');
  const sizes = changes.filter((c) => c.path[3] === 'resources');
  const body = s.bodies.get(pod.meta.name) ?? {};
  const statuses = fieldsOf((body['status'] as Json)?.['containerStatuses']) ?? {};
  const idOf = (name: string): string => String((statuses[name] as Json)?.['containerID'] ?? '');
  const made = revisionBy(s, pod.meta.labels[MARK.revision] ?? '');
  const imageIn = (x: Revision | undefined, name: string): string | undefined =>
    x?.template.spec?.containers.find((c) => c.name === name)?.image;
  const waiting = inPlaceOf(pod)?.containerIDs ?? {};
  const restarts = unique([...Object.keys(waiting), ...images.map((c) => c.path[2] ?? '')])
    .filter((name) => {
      const isOld = waiting[name] === idOf(name); // It has not restarted since the last update.
      const goesBack = isOld && imageIn(made, name) === imageIn(r.update, name);
      return images.some((c) => c.path[2] === name) ? !goesBack : isOld;
    })
    .map((name) => [name, idOf(name)] as const);
  const labels = metadata('labels');
  const annotations = metadata('annotations');
  const isAtRest = pod.isObserved && pod.resize === ''; // Else a resize lost its mark: it counts.
  if (images.length + sizes.length + restarts.length === 0 && isAtRest) {
    const all = { ...annotations, [MARK.inPlace]: null };
    const change = { labels: { ...labels, [MARK.revision]: r.update.hash }, annotations: all };
    const because = changes.length > 0 ? 'Updated' : 'Revised';
    return { do: 'LabelPod', pod, change: { metadata: change }, because };
  }
  const mark = { revision: r.update.hash, containerIDs: Object.fromEntries(restarts) };
  const noted = { ...annotations, [MARK.inPlace]: JSON.stringify(mark) };
  const containers = images.map((c) => ({ name: c.path[2], image: c.value }));
  const sized = unique(sizes.map((c) => c.path[2])).map((name) => {
    const of = (kind: string): Json =>
      Object.fromEntries(
        sizes
          .filter((c) => c.path[2] === name && c.path[4] === kind)
          .map((c) => [c.path[5], c.value]),
      );
    return { name, resources: { requests: of('requests'), limits: of('limits') } };
  });
  const update = {
    metadata: { labels, annotations: noted },
    ...(containers.length > 0 && { spec: { containers } }),
  };
  const resize = sized.length > 0 ? { spec: { containers: sized } } : undefined;
  return { do: 'UpdatePod', pod, revision: r.update.hash, update, resize, because: 'Updated' };
}

// ─── Claims ──────────────────────────────────────────────────────────────────────────────────────

/** The upkeep of claims: free what was marked Delete once its pod is gone (I3), delete what a crash
 *  left before its pod, keep the owner reference in step with whenDeleted, grow what may grow. */
function planClaims(s: Snapshot, { actions }: Draft, members: readonly Judged[]): void {
  const { spec, meta } = s.cluster;
  const wantsOwner = spec.persistentVolumeClaimRetentionPolicy.whenDeleted === 'Delete';
  for (const j of members) {
    const { member, standing } = j;
    const claims = member.claims.filter((c) => !isTerminating(c));
    for (const claim of claims) {
      const { annotations } = claim.meta;
      const isFree = annotations[MARK.retiredPolicy] === 'Delete' && !isWantedBack(member);
      if (standing === 'condemned' && member.gone && isFree) {
        actions.push({
          do: 'DeleteClaim',
          claim,
          because: member.retired?.reason ?? 'Interrupted',
        });
      }
      if (standing === 'undecided' && isInterrupted(member) && !isBound(claim)) {
        actions.push({ do: 'DeleteClaim', claim, because: 'Interrupted' });
      }
      if (!isLive(j)) continue;
      if (isControlledBy(claim.meta, meta.uid) !== wantsOwner) {
        const others = othersOf(claim, meta);
        const ownerReferences = wantsOwner ? [...others, ownerOf(s.cluster)] : others;
        actions.push({
          do: 'OwnClaim',
          claim,
          change: { metadata: { ownerReferences } },
          because: 'Owned',
        });
      }
      const request = claimGrowth(s.cluster, member.identity, claim);
      const refused = s.memory.complaints.get(claim.meta.name);
      const waits = refused?.request === request && s.uptime < refused.untilUptime;
      if (request && !waits)
        actions.push({ do: 'ExpandClaim', claim, request, because: 'Expanded' });
    }
  }
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
    ...(['storageClassName', 'accessModes', 'volumeMode', 'selector'] as const),
    ...(['dataSource', 'dataSourceRef', 'volumeAttributesClassName'] as const),
  ];
  return (
    fixed.find((f) => spec[f] && canonicalJson(spec[f]) !== canonicalJson(claim.spec[f])) ?? ''
  );
}

// ─── What is kept in mind ────────────────────────────────────────────────────────────────────────

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
  const { hash } = p.revisions.update;
  const asked = new Map([
    ...p.members.flatMap(({ member }) =>
      member.claims.map((c) => [c.meta.name, claimGrowth(s.cluster, member.identity, c)] as const),
    ),
    ...pods.map((pod) => [`pods/${pod.meta.name}`, hash] as const),
    [`trials/${hash}`, hash] as const,
  ]);
  const wanted = p.held !== '' || p.actions.some((a) => a.do === 'CreateMember');
  return {
    ...memory,
    firstSeen: new Map(p.evidence.map((key) => [key, memory.firstSeen.get(key) ?? uptime])),
    lastPods: new Map(lastPods),
    deletedUids: new Map([...memory.deletedUids].filter(([uid]) => uids.has(uid))),
    recreatedUids: new Map([...memory.recreatedUids].filter(([uid]) => uids.has(uid))),
    restartsBefore: new Map(restarts),
    outage: p.outage,
    refusal: wanted ? memory.refusal : undefined,
    complaints: new Map(
      [...memory.complaints].filter(([name, c]) => asked.get(name) === c.request),
    ),
  };
}

/** The identity that the action ends, and why. */
function endOf(a: Action, cluster: string): readonly [identity: string, Reason] | undefined {
  if (a.do === 'EndMember') return [a.identity, a.because];
  if (a.do === 'RetireClaim') return [a.claim.meta.labels[MARK.identity] ?? '', a.because];
  if (a.do !== 'DeletePod' || isComeback(a.because)) return undefined;
  return [identityOf(a.pod, cluster), a.because];
}
/** Ends of the last 10 min, those that were done in this pass counted. */
export function endsAfter(
  ends: Memory['ends'],
  done: readonly Action[],
  cluster: string,
  now: number,
): Memory['ends'] {
  const lately = [...ends].filter(([, end]) => Math.abs(now - end.atMs) <= LIMITS.earlyEndMs);
  const fresh = done.flatMap((a): [string, End][] => {
    const [identity, reason] = endOf(a, cluster) ?? [''];
    return reason && !ends.has(identity) ? [[identity, { reason, atMs: now }]] : [];
  });
  return new Map([...lately, ...fresh]);
}
/** Returns of the last 10 min, those that were done in this pass counted. */
export function returnsAfter(
  returns: Memory['returns'],
  done: readonly Action[],
  uptime: number,
): Memory['returns'] {
  const lately = [...returns].filter(([, r]) => uptime - r.atUptime <= LIMITS.earlyEndMs);
  const backs = done.flatMap((a): [string, Comeback][] => {
    if (a.do !== 'CreateMember' || a.because !== 'Returned') return [];
    const { identity } = a.birth;
    return [[identity, { times: (returns.get(identity)?.times ?? 0) + 1, atUptime: uptime }]];
  });
  return new Map([...lately, ...backs]);
}

// ═══ 6 STATUS · pure ═════════════════════════════════════════════════════════════════════════════
// What people and tools are told: status and conditions, recomputed whole every time, and the
// Events of a pass. Nothing is merged by hand, so no condition stays True after recovery. Only
// counters and lineage that no object carries any more are taken over from the status before.

/** The word for people: a member's health, or what is being done with it. */
function healthWord(s: Snapshot, { member, verdict, standing }: Judged): string {
  if (standing === 'withheld') return 'Withheld';
  if (standing !== 'returning') return verdict.health;
  if (s.cluster.spec.suspend) return 'Suspended';
  return member.between ? 'Recreating' : 'Returning';
}
function memberStatus(s: Snapshot, j: Judged): MemberStatus {
  const { member, verdict } = j;
  const { pod, identity, retired } = member;
  const trouble = verdict.health === 'Available' ? '' : pod?.trouble || pod?.resize || '';
  return {
    identity,
    pod: pod?.meta.name ?? '',
    node: nodeNameOf(member),
    revision: revisionIn(member) || goalOf(member),
    health: healthWord(s, j),
    reason: verdict.reason ?? retired?.reason ?? trouble,
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
    const end = endOf(a, s.cluster.meta.name);
    if (end) ending.set(...end);
  }
  // Claims that are still there belong to a member below.
  const found = new Map([...before].map(([id, r]) => [id, { ...r, claims: [] as string[] }]));
  const restored = new Set(
    p.actions.flatMap((a) => (a.do === 'RestoreClaim' ? [a.claim.meta.labels[MARK.identity]] : [])),
  );
  for (const j of p.members) {
    const { member } = j;
    const { identity, retired } = member;
    if (restored.has(identity) || (isLive(j) && !ending.has(identity))) {
      found.delete(identity); // It may have been restored in an earlier pass.
      continue;
    }
    const claims = member.claims.map((c) => c.meta.name).sort();
    const earlier = isLive(j) ? undefined : before.get(identity); // Else of a life before this one.
    // What no mark tells is told again until a status lands.
    const ended = j.standing === 'condemned' ? s.memory.deletedUids.get(uidOf(member)) : undefined;
    const reason = retired?.reason ?? earlier?.reason ?? ending.get(identity) ?? ended;
    if (!reason) continue;
    const at = earlier?.at ?? timeText(retired?.atMs ?? now);
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

/** What claims do not follow: the API server's own words where it refuses to expand one, else the
 *  fields that only new identities get. */
function driftOf(s: Snapshot, { members, revisions: { update } }: Plan): string {
  const { meta, spec } = s.cluster;
  const live = members.filter(isLive).flatMap((j) => {
    const { identity, pod, claims } = j.member;
    const wanted = claimTemplateNames(spec).map((t) => claimName(t, meta.name, identity));
    const isNext = pod && !isOutdated(j, update); // An update would bring what it lacks.
    const lacks = isNext ? wanted.filter((name) => !pod.claims.includes(name)) : [];
    const differs = claims.map((claim) => ({
      name: claim.meta.name,
      field: claimDrift(s.cluster, identity, claim),
      refusal: s.memory.complaints.get(claim.meta.name),
    }));
    return [...differs, ...lacks.map((name) => ({ name, field: 'absent', refusal: undefined }))];
  });
  const refused = live.flatMap((c) => (c.refusal ? [`${c.name}: ${c.refusal.message}`] : []));
  if (refused.length > 0) return `the API server refuses to expand ${fewNames(refused)}`;
  const drifted = live.flatMap((c) => (c.field ? [`${c.name} (${c.field})`] : []));
  if (drifted.length === 0) return '';
  const now = 'spec.volumeClaimTemplates now holds for new identities only';
  return `${now}; these claims differ: ${fewNames(drifted)}`;
}

/** How far an update is. */
function updateMessage({ spec }: StatefulCluster, p: Plan): readonly string[] {
  const outdated = p.members.filter((j) => isOutdated(j, p.revisions.update)).length;
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
  const waiting = live.filter((j) => j.verdict.health !== 'Available');
  const names = waiting.map((j) => {
    const { identity, health, reason } = memberStatus(s, j);
    return `${identity} ${health}${reason && ` (${reason})`}`;
  });
  const grows = live.flatMap(({ member }) =>
    member.claims.filter((c) => quantity(c.capacity) < quantity(c.request)),
  );
  const sizes = grows.map((c) => `${c.meta.name} from ${c.capacity} to ${c.request}`);
  const going = live
    .filter((j) => j.verdict.health === 'Available' && runsOnGoingClaim(j))
    .map(idOf);
  return [
    `${available} of ${s.cluster.spec.replicas} members are available`,
    ...(s.cluster.spec.suspend ? ['the cluster is suspended'] : []),
    ...updateMessage(s.cluster, p),
    ...(names.length > 0 ? [`waiting for ${fewNames(names)}`] : []),
    ...(sizes.length > 0 ? [`claims grow: ${fewNames(sizes)}`] : []),
    ...unique(p.notes),
    ...(p.held !== '' ? [`creations wait: ${p.held}`] : []),
    ...(going.length > 0 ? [`runs on a claim that is being deleted: ${fewNames(going)}`] : []),
    ...(s.nodes ? [] : ['nodes cannot be read, so NodeGone and NodeUnreachable are not judged']),
    ...(s.volumesReadable
      ? []
      : ['volumes cannot be read, so VolumeLost is judged by claims alone']),
  ].join('; ');
}

/** Why the cluster is not done, in one word. */
function stateOf({ meta, spec }: StatefulCluster, p: Plan, stalled: boolean, available: number) {
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
  const trouble = p.stalled || (s.memory.refusal?.message ?? p.blocked);
  const isWhole = live === spec.replicas && available === spec.replicas && p.behind === 0;
  const done = isWhole && trouble === '' && !spec.suspend;
  const drift = driftOf(s, p);
  const message = readyMessage(s, p, available);
  const state = done ? 'AllAvailable' : stateOf(s.cluster, p, trouble !== '', available);
  const progress = done ? 'Complete' : state;
  const paused = meta.annotations[MARK.paused] === 'true';
  const idle = paused || ['Stalled', 'Suspended', 'UpdatePaused'].includes(state);
  const why = p.stalled ? 'InvalidSpec' : s.memory.refusal ? 'Refused' : 'UpdateBlocked';
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
  return rows.map(([type, truth, yes, no, message]) => {
    const [status, reason] = truth ? (['True', yes] as const) : (['False', no] as const);
    const said = message.slice(0, LIMITS.messageMax); // A webhook may say more.
    const next = { type, status, reason, message: said, observedGeneration: meta.generation };
    return setCondition(s.cluster.status.conditions ?? [], next, now);
  });
}

/** Who was let go of without a mark is no member any more; nothing else would tell. */
function withoutEnded(p: Plan): Plan {
  const ended = new Set(p.actions.flatMap((a) => (a.do === 'EndMember' ? [a.identity] : [])));
  const members = p.members.map((j): Judged =>
    ended.has(idOf(j)) ? { ...j, standing: 'condemned' } : j,
  );
  return { ...p, members };
}
/** The whole status, from the snapshot and the plan. Times in it come from objects, never from the
 *  clock of this pass, so an unchanged cluster gives an unchanged status. */
export function statusOf(s: Snapshot, planned: Plan, now: number): Status {
  const p = withoutEnded(planned);
  const { spec, meta } = s.cluster;
  const live = p.members.filter(isLive);
  const { update, current, collisionCount } = p.revisions;
  const count = ({ hash }: Revision): number =>
    live.filter((j) => revisionIn(j.member) === hash).length;
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
    currentReplicas: count(current),
    updatedReplicas: count(update),
    currentRevision: current.hash,
    updateRevision: update.hash,
    collisionCount,
    selector: selectorText(spec.selector),
    replacements: countReplacements(s, p),
    retiredClaims: retired.filter((c) => !isTerminating(c)).length,
    newestIdentity: youngest(identities),
    members: shown.slice(0, LIMITS.statusMembersMax).map((j) => memberStatus(s, j)),
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
const VERBS: Readonly<Partial<Record<Action['do'], string>>> = {
  AdoptPod: 'adopted',
  LabelPod: 'labelled',
  UpdatePod: 'updated in place',
  ReviseRevision: 'adopted',
  RestoreClaim: 'restored claim',
  ReleasePod: 'released',
  RetireClaim: 'retired claim',
  DeletePod: 'deleted pod',
  DeleteClaim: 'deleted claim',
  OwnClaim: 'changed the owner of claim',
  ExpandClaim: 'expanded claim',
  EndMember: 'let go of',
};
/** The object that an action changes; a member to be made has none yet. */
const objectOf = (a: Exclude<Action, Creation | Ending>): Pod | Claim | Revision =>
  'pod' in a ? a.pod : 'claim' in a ? a.claim : a.revision;
const nameOf = (a: Action): string => {
  if (a.do === 'CreateMember') return a.birth.identity;
  return a.do === 'EndMember' ? a.identity : objectOf(a).meta.name;
};

/** One Event for each Reason of a pass, so that 300 creations are one line in `kubectl
 *  describe`. */
export function storiesOf(actions: readonly Action[]): readonly Story[] {
  const told = actions.filter((a) => a.because !== 'Revised'); // Bookkeeping is no news.
  const stories = unique(told.map((a) => a.because)).map((reason): Story => {
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
      ...Object.entries(VERBS).flatMap(([verb, words = verb]) => {
        const names = same.filter((a) => a.do === verb).map(nameOf);
        return names.length > 0 ? [`${words} ${fewNames(names)}`] : [];
      }),
    ];
    return { reason, type: isReplaced(reason) ? 'Warning' : 'Normal', message: parts.join('; ') };
  });
  return stories.filter(({ message }) => message !== ''); // A mark alone is no news.
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
/** Other annotations can be large, and nothing rests on them. */
const ownAnnotations = (annotations: unknown): Dict =>
  Object.fromEntries(
    Object.entries(dictOf(annotations)).filter(
      ([key]) =>
        key.startsWith('enge.me/') || [MARK.deletionCost, MARK.changeCause].includes(key as never),
    ),
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
  ...{ partition: 0, maxUnavailable: 1, maxSurge: 0, paused: false },
  podUpdatePolicy: 'InPlaceIfPossible',
};
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
  const meta = metaOf(raw);
  const isChanging = meta.annotations[MARK.inPlace] !== undefined; // Else it only costs memory.
  const ids = containers.map((c) => [c['name'], c['containerID'] ?? ''] as const);
  return {
    meta,
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
    restarts: all.reduce((sum, c) => sum + (c['restartCount'] ?? 0), 0),
    crashLooping: all.some((c) => c['state']?.waiting?.reason === 'CrashLoopBackOff'),
    trouble: troubleOf(all, condition('PodScheduled')),
    containerIDs: shared(isChanging ? Object.fromEntries(ids) : {}),
    isObserved: (status['observedGeneration'] ?? Infinity) >= meta.generation,
    resize: resizeOf(spec['containers'] ?? [], containers, conditions),
  };
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
    selectedNode: raw['metadata']?.annotations?.['volume.kubernetes.io/selected-node'] ?? '',
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
  readonly deletedUids: Map<string, Reason>;
  readonly recreatedUids: Map<string, string>;
  readonly drawn: Set<string>; // Identities that were posted.
}

const PODS = 'pods';
const CLAIMS = 'persistentvolumeclaims';
const REVISIONS = 'controllerrevisions';
type Kind = typeof PODS | typeof CLAIMS | typeof REVISIONS;
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

/** A patch that only lands on the very object and version that was decided upon. Returns the
 *  object's new metadata, or false when it is gone. */
async function patch(pass: Pass, kind: Kind, { meta }: Thing, change: Json, how: Patch = MERGE) {
  const { namespace, name, uid, resourceVersion } = meta;
  const { under = '', ...rest } = how;
  const path = `${pathOf(kind, namespace, name)}${under}?${FIELDS}`;
  const body = { ...change, metadata: { uid, resourceVersion, ...(change['metadata'] as Json) } };
  try {
    const after = metaOf(await call(pass.world, { ...rest, path, body }));
    pass.written(kind, after, false);
    return after;
  } catch (error) {
    // An old API server answers 404 where it does not know the subresource.
    if (!isGone(error) || under) throw error;
    pass.written(kind, meta, true); // It is gone: there is nothing left to mark.
    return false;
  }
}
type Patch = Pick<ApiRequest, 'method' | 'contentType'> & {
  readonly under?: '/resize';
};

/** A delete that only hits the object that was decided upon. Gone already is as good. */
async function remove(pass: Pass, kind: Kind, meta: Meta, options: Raw) {
  const path = pathOf(kind, meta.namespace, meta.name);
  const body = { apiVersion: 'v1', kind: 'DeleteOptions', ...options };
  await call(pass.world, { method: 'DELETE', path, body }).catch((error: unknown) => {
    if (!isGone(error)) throw error;
  });
  pass.written(kind, meta, true);
}

/** One action, but for CreateMember, which goes in batches; false when it was refused and
 *  noted. */
async function perform(pass: Pass, a: Exclude<Action, Creation>): Promise<unknown> {
  switch (a.do) {
    case 'AdoptPod':
    case 'ReleasePod':
    case 'LabelPod':
      return patch(pass, PODS, a.pod, a.change);
    case 'RetireClaim':
    case 'MarkClaim':
    case 'RestoreClaim':
    case 'OwnClaim':
      return patch(pass, CLAIMS, a.claim, a.change);
    case 'ReviseRevision':
      return patch(pass, REVISIONS, a.revision, a.change);
    case 'UpdatePod':
      return complain(pass, `pods/${a.pod.meta.name}`, a.revision, updateInPlace(pass, a.pod, a));
    case 'ExpandClaim': {
      const change = { spec: { resources: { requests: { storage: a.request } } } };
      const expanded = patch(pass, CLAIMS, a.claim, change).then(() => undefined);
      return complain(pass, a.claim.meta.name, a.request, expanded);
    }
    case 'DeletePod': {
      const { uid } = a.pod.meta;
      if (a.returnsAt !== undefined) pass.recreatedUids.set(uid, a.returnsAt);
      else if (a.because !== 'Returned') pass.deletedUids.set(uid, a.because);
      // A grace period of 0 is a force-delete, which frees the name while containers may still run.
      const gracePeriodSeconds = Math.max(1, a.pod.graceSeconds);
      return remove(pass, PODS, a.pod.meta, { gracePeriodSeconds, preconditions: { uid } });
    }
    case 'EndMember':
      pass.recreatedUids.delete(a.uid);
      return void pass.deletedUids.set(a.uid, a.because);
    case 'DeleteClaim': {
      // I3: the version too, so that a claim bound in the meantime is not deleted as unbound.
      const { uid, resourceVersion } = a.claim.meta;
      return remove(pass, CLAIMS, a.claim.meta, { preconditions: { uid, resourceVersion } });
    }
    case 'DeleteRevision': {
      const { uid } = a.revision.meta;
      return remove(pass, REVISIONS, a.revision.meta, { preconditions: { uid } });
    }
    case 'CreateRevision': {
      const path = `${pathOf(REVISIONS, pass.cluster.meta.namespace)}?${FIELDS}`;
      const raw = await call(pass.world, { method: 'POST', path, body: a.body });
      return pass.written(REVISIONS, metaOf(raw), false);
    }
    default:
      return a satisfies never;
  }
}

/** The resize goes first: what cannot be resized may need another way, and only the second patch
 *  says that all was asked for. */
async function updateInPlace(pass: Pass, pod: Pod, { update, resize }: InPlace): Promise<void> {
  const size = { ...STRATEGIC, under: '/resize' } as const;
  const meta = resize ? await patch(pass, PODS, pod, resize, size) : pod.meta;
  if (meta) await patch(pass, PODS, { meta }, update, STRATEGIC);
}

/** A refusal of this work is remembered, shown, and tried again later; it holds nothing else up. */
async function complain(pass: Pass, name: string, request: string, work: Promise<void>) {
  try {
    await work;
    pass.complaints.delete(name);
    return true;
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const untilUptime = pass.world.uptime() + LIMITS.backoffMaxMs;
    pass.complaints.set(name, { message: error.message, request, untilUptime });
    return false;
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

/** POST that repeats safely: AlreadyExists is success when the object there is `own`, and ours.
 *  Throws AlreadyExists for any other, which is neither adopted nor touched (I8). */
async function create(pass: Pass, kind: Kind, body: Body, own: boolean): Promise<Meta> {
  const { namespace } = pass.cluster.meta;
  const path = `${pathOf(kind, namespace)}?${FIELDS}`;
  let meta: Meta;
  try {
    meta = metaOf(await call(pass.world, { method: 'POST', path, body }));
  } catch (error) {
    if (!isTaken(error) || !own) throw error;
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
  // I1: what a first POST finds there is of another process that drew the same identity.
  const isRepeated = pass.unfinished.has(creation);
  pass.unfinished.add(creation);
  pass.drawn.add(birth.identity);
  const posts = birth.claims.map((c) => create(pass, CLAIMS, c, isRepeated));
  const tries = await Promise.allSettled(posts);
  const own = isRepeated || (tries.length > 0 && tries.every((t) => t.status === 'fulfilled'));
  try {
    throwFirst(tries);
    await create(pass, PODS, birth.pod, own);
  } catch (error) {
    if (!isRefusal(error) && !isTaken(error)) throw error;
    // A POST whose answer was lost may have landed: quota and webhooks refuse its repetition before
    // AlreadyExists would tell. I3: the claims of a pod that is there are not rolled back.
    const looked = own && isCreated(pass, birth).catch(() => Promise.reject(error));
    const created = await looked; // Not known: nothing is rolled back, the refusal is told.
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
    if (isGone(error)) return false;
    throw error;
  }
}
/** I4: there is no room for it any more, so it is not posted again; its claims are interrupted. */
async function forgo(pass: Pass, creation: Creation): Promise<void> {
  if (await isCreated(pass, creation.birth)) pass.done.push(creation);
  pass.unfinished.delete(creation);
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
  ['CreateRevision', 'ReviseRevision'],
  // Marks before ends: a crash leaves no member ended and unmarked.
  ['RetireClaim', 'MarkClaim', 'RestoreClaim', 'AdoptPod'],
  ['ReleasePod', 'DeletePod'],
  ['DeleteClaim'],
  ['EndMember'],
  ['CreateMember'],
  // Upkeep holds nothing else up.
  ['UpdatePod', 'LabelPod', 'OwnClaim', 'ExpandClaim', 'DeleteRevision'],
];
/** I4: a member that could not be ended keeps its place, whomever the new ones are to replace. */
function birthsWithRoom(all: readonly Action[], now: readonly Action[], failed: number) {
  const births = now.flatMap((a) => (a.do === 'CreateMember' ? [a] : []));
  const heldBack = all.filter((a) => a.do === 'CreateMember').length - births.length;
  const back = births.filter((a) => isComeback(a.because));
  const fresh = births.filter((a) => !isComeback(a.because));
  return [...back, ...fresh.slice(0, Math.max(0, fresh.length - Math.max(0, failed - heldBack)))];
}
/** Runs the actions stage by stage. What fails holds back only what comes after it for its own
 *  member and that member's successor. Returns the failure of the first in the plan, not in time:
 *  the status tells it, and it must not change from pass to pass. */
async function execute(
  pass: Pass,
  { actions, unwanted }: Pick<Plan, 'actions' | 'unwanted'>,
  refusal: Refusal | undefined,
) {
  const held = refusal !== undefined && pass.world.uptime() < refusal.untilUptime;
  const again = held ? [] : [...pass.unfinished];
  const forgone = again.splice(Math.max(0, again.length - unwanted));
  const failed = new Set<string>();
  let failure: { readonly at: number; readonly error: unknown } | undefined;
  const { name } = pass.cluster.meta;
  const memberOfAction = (a: Exclude<Action, Creation>): string => {
    if (a.do === 'EndMember') return a.identity;
    return 'pod' in a ? identityOf(a.pod, name) : (objectOf(a).meta.labels[MARK.identity] ?? name);
  };
  const goesOn = (a: Action): boolean =>
    !failed.has((a.do === 'CreateMember' ? a.replaces : memberOfAction(a)) ?? '');
  const attempt = async (work: Promise<void>, member: string, at: number): Promise<void> =>
    work.catch((error: unknown) => {
      failed.add(member);
      if (!failure || at < failure.at) failure = { at, error };
    });
  for (const stage of STAGES) {
    const now = actions.filter((a) => stage.includes(a.do) && goesOn(a));
    const missed: Action[] = [];
    if (stage.includes('CreateMember')) {
      const births = birthsWithRoom(actions, now, failed.size);
      const made = createMembers(pass, [...again, ...births], refusal !== undefined);
      await attempt(made, '', actions.length);
      for (const creation of forgone) await attempt(forgo(pass, creation), '', actions.length);
    }
    const works = now.map((a) => {
      if (a.do === 'CreateMember') return undefined;
      return attempt(
        perform(pass, a).then((did) => void (did === false ? missed.push(a) : pass.done.push(a))),
        memberOfAction(a),
        actions.indexOf(a),
      );
    });
    await Promise.all(works);
    // The mark of a claim that is gone is as good as made, unless a sibling's mark failed.
    pass.done.push(...missed.filter((a) => a.do === 'RetireClaim' && goesOn(a)));
  }
  return failure?.error;
}

// ═══ 12 CONTROLLER · effects ═════════════════════════════════════════════════════════════════════
// reconcile(key): snapshot → plan → live reads → plan → execute → status → requeue. It moves what
// the rooms above it decided; it has no ifs on domain fields.

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
  saw(cluster: string, sight: Sight | undefined): void; // undefined: the cluster is gone.
  replaced(because: Reason): void;
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
  readonly revisions: Feed<Revision>;
}
interface Children {
  readonly pods: Map<string, Pod>;
  readonly claims: Map<string, Claim>;
  readonly revisions: Map<string, Revision>;
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
  blindUntil: number; // Uptime at which a volume may be read again, after a 403.
  queue: ReturnType<typeof newQueue>;
  readonly observer: Observer | undefined;
}

/** The whole operator on one World, until aborted: what `run` starts and the simulation runs. */
export async function runOperator(
  world: World,
  options: Options,
  signal: AbortSignal,
): Promise<void> {
  const maps = { desks: new Map(), children: new Map(), volumes: new Map(), scopes: new Map() };
  const work = (key: string): Promise<void> => timed(o, () => reconcile(o, key));
  const queue = newQueue(
    world,
    options.workers,
    work,
    (key) => o.children.get(key)?.pods.size ?? 0,
  );
  const { observer } = options;
  const rest = { nodes: undefined, blindUntil: 0, queue, observer };
  const o: Operator = { world, signal, ...maps, ...rest };
  observer?.leads();
  const feeds = startFeeds(o, options);
  const done = Promise.all(feeds.map((feed) => feed.done));
  await Promise.race([Promise.all(feeds.map((feed) => feed.ready.promise)), aborted(signal)]);
  if (!signal.aborted) {
    // Nothing is planned from a view that is not whole.
    const keys = [...o.scopes.values()].flatMap((scope) => [...scope.clusters.items.keys()]);
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
      pods: watch(pathOf('pods', ns) + label, podOf, (a, b, isNews) => onPod(o, a, b, isNews)),
      claims: watch(pathOf('persistentvolumeclaims', ns) + label, claimOf, (a, b, isNews) =>
        onChild(o, 'claims', a, b, isNews),
      ),
      revisions: watch(pathOf(REVISIONS, ns) + label, revisionOf, (a, b, isNews) =>
        onChild(o, 'revisions', a, b, isNews),
      ),
      clusters: watch(clusterPath(ns) + chosen, clusterOf, (a, b, isNews) => {
        const meta = (b ?? a)?.meta;
        if (meta && isNews) o.queue.add(keyOf(meta));
      }),
    });
  }
  o.nodes = watch('/api/v1/nodes', nodeOf, (a, b, isNews) => isNews && onNode(o, a, b));
  return feeds;
}

const clusterKeyOf = (meta: Meta): string => `${meta.namespace}/${meta.labels[MARK.cluster] ?? ''}`;
function childrenOf(o: Operator, key: string): Children {
  const found = o.children.get(key) ?? { pods: new Map(), claims: new Map(), revisions: new Map() };
  o.children.set(key, found);
  return found;
}
/** Keeps the index of children by cluster, and wakes the cluster once the index is right. */
function onChild(
  o: Operator,
  kind: keyof Children,
  before: Thing | undefined,
  after: Thing | undefined,
  isNews: boolean,
): void {
  const [from, to] = [before && clusterKeyOf(before.meta), after && clusterKeyOf(after.meta)];
  if (before && from !== undefined && from !== to) {
    const children = childrenOf(o, from);
    children[kind].delete(before.meta.name);
    const { pods, claims, revisions } = children;
    if (pods.size + claims.size + revisions.size === 0) o.children.delete(from);
  }
  if (after && to !== undefined) {
    (childrenOf(o, to)[kind] as Map<string, Thing>).set(after.meta.name, after);
  }
  for (const key of unique([from, to])) if (key !== undefined && isNews) o.queue.add(key);
}
/** A pod that went is remembered until the plan has dealt with its member. */
function onPod(
  o: Operator,
  before: Pod | undefined,
  after: Pod | undefined,
  isNews: boolean,
): void {
  const key = before && clusterKeyOf(before.meta);
  const desk = o.desks.get(key ?? '');
  if (before && !after && desk && isControlledBy(before.meta, desk.uid)) {
    const identity = identityOf(before, before.meta.labels[MARK.cluster] ?? '');
    const lastPods = new Map(desk.memory.lastPods).set(identity, before);
    desk.memory = { ...desk.memory, lastPods };
  }
  onChild(o, 'pods', before, after, isNews); // Wakes the cluster, so it comes last.
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
  const maps = { ...seen, returns: new Map(), ends: new Map(), unfinished: new Set<string>() };
  const memory = {
    ...maps,
    deletedUids: new Map<string, Reason>(),
    recreatedUids: new Map<string, string>(),
    complaints: new Map(),
    refusal: undefined,
    outage: undefined,
    newest: '',
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
  if (feed.listedAt >= at) return true; // The list began when the answer was there.
  const meta = feed.items.get(key)?.meta;
  if (version === 0) return meta?.uid !== uid || meta.deletedMs !== undefined;
  // An older object in a view that claims to be newer: etcd was restored, and a list will tell.
  return feed.version >= version && (!meta || Number(meta.resourceVersion) >= version);
}
/** Read-your-writes: no plan before the cache shows what was written. A cache that lags long is
 *  listed anew; it is never just believed, or a stale view would create or delete twice (I4). */
function hasCaughtUp(o: Operator, key: string, desk: Desk): boolean {
  desk.expected = desk.expected.filter((e) => !isSeen(e));
  if (desk.expected.length === 0) return true;
  const uptime = o.world.uptime();
  // A list that is on its way is left to end, however slow it is: cut, it would never be whole.
  const late = desk.expected.filter(
    (e) => e.feed.next === 'resume' && uptime - e.at >= LIMITS.catchUpMaxMs,
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

const podNameOf = (creation: Creation): string => creation.birth.pod.metadata.name;
function snapshotOf(o: Operator, cluster: StatefulCluster, desk: Desk, scope: Scope): Snapshot {
  const { pods, claims, revisions } = childrenOf(o, keyOf(cluster.meta));
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
    revisions: new Map(revisions),
    bodies: new Map(),
    nodes: o.nodes?.denied === '' ? o.nodes.items : undefined,
    volumes: o.volumes,
    volumesReadable: o.world.uptime() >= o.blindUntil,
    live: new Set(),
    memory: { ...memory, unfinished: new Set(unfinished.map(podNameOf)) },
    denied: scope.pods.denied || scope.claims.denied || scope.revisions.denied,
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
    const raws = await Promise.all(p.ask.map((ref) => read(o, s.cluster.meta, ref)));
    s = overlay(o, s, p.ask, raws);
    p = plan(s, world.now(), world.random);
  }
  return { s, p };
}
/** A live GET; undefined says that there is no such object, which is an answer too. */
async function read(o: Operator, { namespace }: Meta, ref: Ref): Promise<Raw | undefined> {
  const { kind, name } = ref;
  if (kind === 'trials') return tryRevision(o, namespace, ref);
  const path =
    kind === 'nodes' || kind === 'persistentvolumes'
      ? `/api/v1/${kind}/${name}`
      : kind === 'statefulclusters'
        ? clusterPath(namespace, name)
        : pathOf(kind, namespace, name);
  try {
    return await call(o.world, { method: 'GET', path });
  } catch (error) {
    if (isGone(error)) return undefined;
    if (kind !== 'persistentvolumes' || !(error instanceof ApiError) || error.code !== 403)
      throw error;
    o.blindUntil = o.world.uptime() + LIMITS.backoffMaxMs;
    return undefined;
  }
}
/** A dry-run of a revision's pod, under a name that exists: that is the last thing to be objected
 *  to. Whatever else is said is told to the user, also of a webhook that fails: it costs no member,
 *  and it holds nothing else up. */
async function tryRevision(
  { world }: Operator,
  namespace: string,
  { name, body }: Ref,
): Promise<Raw> {
  const path = `${pathOf(PODS, namespace)}?dryRun=All&${FIELDS}`;
  const uptime = world.uptime();
  try {
    await call(world, { method: 'POST', path, body });
  } catch (error) {
    const untilUptime = uptime + LIMITS.trialMs;
    const isPassing = !isRefusal(error);
    if (!isTaken(error)) return { message: wordsOf(error), request: name, untilUptime, isPassing };
  }
  return { message: '', request: name, untilUptime: Infinity };
}
/** Lays what was read live over the snapshot; its maps are copied once for all. */
function overlay(
  o: Operator,
  s: Snapshot,
  refs: readonly Ref[],
  raws: readonly (Raw | undefined)[],
): Snapshot {
  const maps = { pods: new Map(s.pods), claims: new Map(s.claims), bodies: new Map(s.bodies) };
  const [nodes, revisions] = [s.nodes && new Map(s.nodes), new Map(s.revisions)];
  const complaints = new Map(s.memory.complaints);
  let { cluster } = s;
  const lay = <T>(map: Map<string, T> | undefined, { name }: Ref, object: T | undefined): void => {
    if (object) map?.set(name, object);
    else map?.delete(name);
  };
  for (const [i, ref] of refs.entries()) {
    const raw = raws[i];
    switch (ref.kind) {
      case 'pods':
        if (raw) maps.bodies.set(ref.name, raw);
        lay(maps.pods, ref, raw && podOf(raw));
        break;
      case 'controllerrevisions':
        lay(revisions, ref, raw && revisionOf(raw));
        break;
      case 'trials':
        complaints.set(keyOfRef(ref), raw as Complaint);
        break;
      case 'persistentvolumeclaims':
        lay(maps.claims, ref, raw && claimOf(raw));
        break;
      case 'nodes':
        lay(nodes, ref, raw && nodeOf(raw));
        break;
      case 'persistentvolumes':
        if (raw) o.volumes.set(ref.name, volumeOf(raw));
        break;
      case 'statefulclusters': {
        const found = raw && clusterOf(raw);
        if (found?.meta.uid === cluster.meta.uid) cluster = found;
        else throw new ApiError(410, 'Gone', 'the cluster is gone: the cache will say so');
        break;
      }
      default:
        ref.kind satisfies never;
    }
  }
  const live = new Set([...s.live, ...refs.map(keyOfRef)]);
  const memory = { ...s.memory, complaints };
  const volumesReadable = s.uptime >= o.blindUntil;
  return { ...s, ...maps, cluster, nodes, revisions, live, memory, volumesReadable };
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
    controllerrevisions: scope.revisions,
    statefulclusters: scope.clusters,
  };
  return {
    world: o.world,
    cluster,
    done: [],
    unfinished: desk.unfinished,
    complaints: new Map(desk.memory.complaints),
    deletedUids: new Map(desk.memory.deletedUids),
    recreatedUids: new Map(desk.memory.recreatedUids),
    drawn: new Set([desk.memory.newest]),
    written(kind, meta, gone) {
      const feed = feeds[kind];
      const known = gone ? 0 : Number(meta.resourceVersion);
      // A view that is later and lacks it is of before etcd was restored: only a list can tell.
      const isLost = feed && feed.version >= known && !feed.items.has(keyOf(meta));
      const version = isLost && !gone ? Infinity : known;
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
  if (!scope || !cluster) {
    const left = o.desks.get(key);
    if (left && !hasCaughtUp(o, key, left)) return; // It may be chosen again before that.
    o.observer?.saw(key, undefined);
    return void o.desks.delete(key);
  }
  const desk = deskOf(o, key, cluster.meta.uid);
  if (!hasCaughtUp(o, key, desk)) return;
  const { s, p } = await decide(o, snapshotOf(o, cluster, desk, scope));
  desk.memory = { ...desk.memory, complaints: s.memory.complaints };
  const pass = passOf(o, key, s.cluster, desk, scope);
  if (isTerminating(s.cluster)) desk.unfinished.clear(); // Nothing is created after that.
  for (const creation of desk.unfinished) {
    if (s.memory.unfinished.has(podNameOf(creation))) continue;
    desk.unfinished.delete(creation); // I1: posted again, it might outlive its own end.
    pass.done.push(creation);
  }
  try {
    // What was seen is kept, whatever fails.
    const { firstSeen, outage } = remember(s, p, desk.memory);
    desk.memory = { ...desk.memory, firstSeen, outage };
    const failure = await execute(pass, p, desk.memory.refusal);
    desk.memory = memoryAfter(pass, desk);
    if (isRefusal(failure)) await refuse(o, pass, desk, failure, s.pods.size);
    await o.world.sleep(0); // Others have their turn: the status of a large cluster takes long.
    const remembered = (): Memory => (failure ? desk.memory : remember(s, p, desk.memory));
    // The status tells what was done, not what was planned.
    const then = { ...p, actions: pass.done };
    await report(o, pass, desk, { ...s, memory: remembered() }, then).catch((error: unknown) =>
      awaitCluster(o, pass, error),
    );
    desk.memory = remembered(); // Not before an end that no mark tells is told.
    if (failure && !isRefusal(failure)) throw failure;
  } finally {
    o.observer?.saw(key, sightOf(s, p));
    for (const a of pass.done)
      if (a.do === 'CreateMember' && a.replaces) o.observer?.replaced(a.because);
    for (const story of storiesOf(pass.done)) await recordEvent(pass, desk, story);
  }
  // What was refused may be done otherwise.
  if (pass.complaints.size > s.memory.complaints.size) o.queue.addAfter(key, LIMITS.againMinMs);
  if (p.ask.length > 0) o.queue.addAfter(key, LIMITS.recheckMs); // Four rounds were too few.
  // A right may be given yet.
  if (!s.volumesReadable) o.queue.addAfter(key, Math.max(100, o.blindUntil - o.world.uptime()));
  o.queue.addAfter(key, desk.expected.length > 0 ? LIMITS.recheckMs : p.wakeMs);
}
function sightOf(s: Snapshot, p: Plan): Sight {
  const health: Record<string, number> = {};
  for (const j of p.members.filter(isLive))
    health[healthWord(s, j)] = (health[healthWord(s, j)] ?? 0) + 1;
  const retired = [...s.claims.values()].filter((c) => c.meta.labels[MARK.retired] === 'true');
  const { conditions = [] } = s.cluster.status;
  return { health, conditions, retiredClaims: retired.filter((c) => !isTerminating(c)).length };
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
const memoryAfter = (pass: Pass, { memory }: Desk): Memory => ({
  ...memory,
  deletedUids: pass.deletedUids,
  recreatedUids: pass.recreatedUids,
  returns: returnsAfter(memory.returns, pass.done, pass.world.uptime()),
  ends: endsAfter(memory.ends, pass.done, pass.cluster.meta.name, pass.world.now()),
  newest: youngest(pass.drawn),
  complaints: pass.complaints,
  refusal: pass.done.some((a) => a.do === 'CreateMember') ? undefined : memory.refusal,
});

/** A status that does not land says that the cluster is another by now, or gone, whatever the watch
 *  tells: nothing more is planned for it before the cache shows what is read here. */
async function awaitCluster(o: Operator, { cluster: { meta }, written }: Pass, error: unknown) {
  if (!(error instanceof ApiError) || ![404, 409].includes(error.code)) throw error;
  const now = await read(o, meta, refOf('statefulclusters', meta.name));
  const live = now ? metaOf(now) : meta;
  // Versions that fall come from a restored etcd: only a new list can be later than they are.
  const isOlder = Number(live.resourceVersion) < Number(meta.resourceVersion);
  written('statefulclusters', isOlder ? { ...live, resourceVersion: 'Infinity' } : live, !now);
  throw error;
}
/** Remembers a refusal for the status, in the API server's own words, and comes back later. */
async function refuse(o: Operator, pass: Pass, desk: Desk, error: ApiError, before: number) {
  const { world } = o;
  const times = (desk.memory.refusal?.times ?? 0) + 1;
  const wait = doubled(times);
  const { generation } = pass.cluster.meta;
  const pods = before + pass.done.filter((a) => a.do === 'CreateMember').length;
  const untilUptime = world.uptime() + wait;
  const refusal = { message: error.message, generation, pods, times, untilUptime };
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
  const known = new Set((s.cluster.status.retired ?? []).map((r) => r.identity));
  const urgent = status.retired.some((r) => !known.has(r.identity));
  const dueMs = desk.statusAt + LIMITS.statusEveryMs - o.world.uptime();
  if (dueMs > 0 && !urgent) return o.queue.addAfter(keyOf(s.cluster.meta), dueMs);
  const raw = await call(o.world, {
    method: 'PATCH',
    path: `${clusterPath(namespace, name)}/status?${FIELDS}`,
    contentType: 'application/merge-patch+json',
    body: { metadata: { uid, resourceVersion }, status },
  });
  desk.statusAt = o.world.uptime();
  pass.written('statefulclusters', metaOf(raw), false);
  const turned = turnsOf(s.cluster.status.conditions ?? [], status.conditions);
  for (const story of turned) await recordEvent(pass, desk, story);
}

/** An Event, or one more count of the same Event within ten minutes. It is news, not work: a
 *  failure is logged, and nothing waits for it for long. */
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
  await call(world, { ...request, timeoutMs: LIMITS.eventMs }).catch((error: unknown) => {
    world.log('debug', 'Event not written', { error: String(error) });
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

/** What a pass found of one cluster; all its members are counted, not only those it lists. */
export type Sight = Pick<Status, 'conditions' | 'retiredClaims'> & {
  readonly health: Readonly<Record<string, number>>; // Word of status.members → how many.
};
/** What the pages are made of. */
export interface Vitals {
  readonly world: World;
  readonly series: ReadonlyMap<string, Map<string, number>>; // Metric → suffix and labels → value.
  readonly watches: Map<string, { newsAt: number; signAt: number }>; // By path; uptimes.
  readonly sights: Map<string, Sight>; // By cluster.
  phase: 'standby' | 'syncing' | 'synced';
  depth: () => number;
  lagMs: number;
}
/** Series whose labels are known begin at 0, so that a rate sees their first step. */
export function newVitals(world: World): Vitals {
  const series = new Map(Object.keys(METRICS).map((name) => [name, new Map()]));
  const maps = { watches: new Map(), sights: new Map() };
  const v: Vitals = { world, series, ...maps, phase: 'standby', depth: () => 0, lagMs: 0 };
  for (const reason of [...FACTS, ...JUDGEMENTS])
    count(v, 'statefulcluster_replacements_total', { reason }, 0);
  count(v, 'statefulcluster_reconciles_total', { result: 'success' }, 0);
  count(v, 'statefulcluster_reconciles_total', { result: 'error' }, 0);
  count(v, 'statefulcluster_watch_restarts_total', {}, 0);
  return v;
}
/** Values are words of this program, and names: what JSON escapes beyond the format is in none. */
function labelsText(labels: Dict): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return pairs.length > 0 ? `{${pairs.join()}}` : '';
}
function count({ series }: Vitals, metric: Metric, labels: Dict, by = 1, suffix = ''): void {
  const key = suffix + labelsText(labels);
  series.get(metric)?.set(key, (series.get(metric)?.get(key) ?? 0) + by);
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
  const bare = (path: string): string => path.split('?')[0] ?? '';
  const told = async (verb: string, answer: Promise<ApiResponse>): Promise<ApiResponse> => {
    const code = await answer.then(({ status }) => `${status}`).catch(() => 'none');
    count(v, 'statefulcluster_api_requests_total', { verb, code });
    return answer;
  };
  return {
    ...world,
    send(request) {
      const { method: verb, path } = request;
      const at = world.uptime();
      const watch = v.watches.get(bare(path));
      if (watch && verb === 'GET') watch.signAt = at; // A list, before it is watched again.
      return told(verb, world.send(request)).finally(() =>
        time(v, 'statefulcluster_api_request_duration_seconds', { verb }, world.uptime() - at),
      );
    },
    watch(path, on, signal) {
      const signAt = world.uptime();
      const known = v.watches.get(bare(path));
      if (known) count(v, 'statefulcluster_watch_restarts_total', {});
      const watch = { newsAt: known?.newsAt ?? signAt, signAt };
      v.watches.set(bare(path), watch);
      const hear = (event: WatchEvent): void => {
        watch.newsAt = watch.signAt = world.uptime();
        on(event);
      };
      return told('WATCH', world.watch(path, hear, signal));
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
  saw: (cluster, sight) => void (sight ? v.sights.set(cluster, sight) : v.sights.delete(cluster)),
  replaced: (reason) => count(v, 'statefulcluster_replacements_total', { reason }),
});

/** What is read off when it is asked for. Of a cluster that is gone, or a word that fits nobody any
 *  more, no series is left. */
function gaugesOf(v: Vitals) {
  const gauge = (name: Metric, value: number, labels: Dict = {}) => [name, value, labels] as const;
  const { rss, heapUsed } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const clusters = [...v.sights].flatMap(([key, { health, conditions, retiredClaims }]) => {
    const [namespace = '', name = ''] = key.split('/');
    const own = { namespace, name };
    const counts = Object.entries(health);
    return [
      ...counts.map(([word, n]) => gauge('statefulcluster_members', n, { ...own, health: word })),
      ...conditions.map(({ type, status }) =>
        gauge('statefulcluster_condition', Number(status === 'True'), { ...own, type }),
      ),
      gauge('statefulcluster_retired_claims', retiredClaims, own),
    ];
  });
  return [
    gauge('statefulcluster_build_info', 1, { version: VERSION }),
    gauge('statefulcluster_leader', Number(v.phase !== 'standby')),
    gauge('statefulcluster_queue_depth', v.depth()),
    gauge('process_cpu_seconds_total', (user + system) / 1e6),
    gauge('process_resident_memory_bytes', rss),
    gauge('process_start_time_seconds', performance.timeOrigin / 1000),
    gauge('nodejs_heap_size_used_bytes', heapUsed),
    gauge('nodejs_eventloop_lag_seconds', v.lagMs / 1000),
    ...clusters,
  ];
}
/** The text format 0.0.4 of Prometheus. */
export function metricsText(v: Vitals): string {
  const series = new Map([...v.series].map(([metric, counted]) => [metric, [...counted]]));
  for (const [metric, value, labels] of gaugesOf(v))
    series.get(metric)?.push([labelsText(labels), value]);
  const families = Object.entries(METRICS).map(([name, [type, help]]) => {
    const lines = series.get(name)?.map(([rest, value]) => `${name}${rest} ${value}\n`) ?? [];
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
/** Status and text of one page. */
export function pageOf(v: Vitals, path: string): readonly [status: number, text: string] {
  if (path === '/metrics') return [200, metricsText(v)];
  if (path === '/readyz' && v.phase === 'standby') return [200, 'standby\n'];
  if (path === '/readyz') {
    const head = v.phase === 'synced' ? 'leader\n' : 'leader, the caches are not synced\n';
    const ages = [...v.watches].map(([watched, { newsAt }]) => {
      const seconds = Math.floor((v.world.uptime() - newsAt) / 1000);
      return `${watched}: last event or bookmark ${seconds} s ago\n`;
    });
    return [v.phase === 'synced' ? 200 : 503, head + ages.join('')];
  }
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
/** Serves the pages until aborted. Whoever holds connections open and asks nothing keeps nobody
 *  out: beyond the limit the one that has been idle for longest goes. */
async function serveProbes(v: Vitals, address: net.ListenOptions, signal: AbortSignal) {
  const http = process.getBuiltinModule('node:http'); // Not needed by `version`.
  const server = http.createServer((request, response) => {
    const [status, body] = pageOf(v, request.url?.split('?')[0] ?? '');
    const type = 'text/plain; version=0.0.4; charset=utf-8';
    response.writeHead(status, { 'content-type': type }).end(body);
    seen(request.socket);
  });
  server.headersTimeout = server.requestTimeout = server.keepAliveTimeout = 5000;
  const sockets = new Set<net.Socket>(); // The one that has been idle for longest is the first.
  const seen = (socket: net.Socket): unknown => sockets.delete(socket) && sockets.add(socket);
  server.on('connection', (socket) => {
    sockets.add(socket.once('close', () => sockets.delete(socket)));
    if (sockets.size > LIMITS.probersMax) [...sockets][0]?.destroy();
  });
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
// 2, what cannot be done is one line and exit code 1; a stack trace is a bug. Control characters in
// what others wrote are escaped before they reach a terminal.

const VERSION = process.env['STATEFULCLUSTER_VERSION'] ?? '0.0.0-dev'; // Set by build.mjs.
/** kubectl finds its plugins by the names of their files. */
const isPlugin = [process.argv0, process.argv[1] ?? ''].some((file) =>
  /(^|\/)kubectl-statefulcluster[^/]*$/.test(file),
);
const PROGRAM = isPlugin ? 'kubectl statefulcluster' : 'statefulcluster';
const { bold, gray, red, yellow, green, cyan, magenta } = kleur;
/** Wrong use of the command line: one line, exit code 2. */
class UsageError extends Error {}

/** What the user asked for: a command, the words after it, and its flags ('true' for bare ones). */
interface Asked {
  readonly words: string;
  readonly names: readonly string[];
  readonly flags: Readonly<Record<string, string | undefined>>;
}
const unicode = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
/** Control characters, and those that turn the direction of writing, as JSON escapes them. */
const escaped = (text: string): string =>
  text.replace(/[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, unicode);
/** The same for every text in an object that is shown, and never written back. */
const tamed = (raw: Raw): Raw =>
  JSON.parse(JSON.stringify(raw), (_, v) => (typeof v === 'string' ? escaped(v) : v));

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
  const paint = { debug: gray, info: green, warn: yellow, error: red };
  return (level, message, fields = {}) => {
    if (level === 'debug') return;
    const time = new Date().toISOString();
    if (format === 'json')
      return console.log(escaped(JSON.stringify({ time, level, msg: message, ...fields })));
    const { cluster = '', message: text = '', ...rest } = fields;
    const others = Object.entries(rest).map(([k, v]) => gray(escaped(`${k}=${String(v)}`)));
    const head = `${gray(time.slice(11, 19))} ${paint[level](escaped(message).padEnd(16))}`;
    const words = [head, bold(escaped(String(cluster))), escaped(String(text)), ...others];
    console.log(words.filter(Boolean).join(' '));
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

async function run({ flags }: Asked): Promise<void> {
  const format = flags['log'] ?? (process.stdout.isTTY ? 'pretty' : 'json');
  if (format !== 'json' && format !== 'pretty')
    throw new UsageError('--log must be json or pretty');
  const workers = Number(flags['workers'] ?? 4);
  if (!Number.isInteger(workers) || workers < 1)
    throw new UsageError('--workers must be a number above 0');
  if (flags['all-namespaces'] && flags['namespace'])
    throw new UsageError('-A and -n exclude each other');
  const probes = probeAddress(flags['probe-addr'] ?? ':8080');
  const load = (): Promise<KubeConfig> => loadConfig(flags['kubeconfig'], flags['context']);
  const config = await load();
  const context = config.getCurrentContext();
  const own = config.getContextObject(context)?.namespace ?? 'default';
  const asked = flags['namespace'] ?? process.env['WATCH_NAMESPACE'] ?? own;
  const namespaces = unique((flags['all-namespaces'] ? '' : asked).split(',').filter(Boolean));
  const inPod = context === 'inClusterContext'; // So the library calls it.
  // The Lease is with the pod, or with what is watched from outside.
  const namespace = flags['leader-elect-namespace'] ?? (inPod ? own : (namespaces[0] ?? own));
  const log = logger(format);
  const vitals = newVitals(realWorld(config, log, load));
  const world = measured(vitals);
  const selector = flags['selector'] ?? '';
  const options = { namespaces, workers, selector, observer: observerOf(vitals) };
  // Else what a list leaves behind stays resident: 195 MB with 10,000 pods, instead of 124.
  process.getBuiltinModule('node:v8').setFlagsFromString('--semi-space-growth-factor=1');
  const stop = new AbortController();
  if (probes) await serveProbes(vitals, probes, stop.signal);
  await preflight(world, options, inPod);
  process.stdout.on('error', () => stop.abort()); // Whoever read the log is gone.
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stop.abort());
  const server = config.getCurrentCluster()?.server;
  log('info', 'starts', { version: VERSION, server, namespaces: namespaces.join(',') || 'all' });
  const identity = `${hostname()}_${digits(Math.floor(world.random() * BASE ** 10), 10)}`;
  const elected = { ...options, lease: { namespace, identity } };
  await (flags['leader-elect'] === 'false'
    ? runOperator(world, options, stop.signal)
    : runElected(world, elected, stop.signal));
  log('info', 'stopped');
}

// ── At the terminal ─────────────────────────────────────────────────────────────────────────────
const readerLeft = (): void => process.exit(0);
/** Colours pass; any other control character that came so far is escaped here. */
function say(text: string): void {
  process.stdout.off('error', readerLeft).on('error', readerLeft);
  const odd = /\x1b(?!\[\d+m)|[\0-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]/g;
  process.stdout.write(`${text.replace(odd, unicode)}\n`);
}
/** What the API server warns of, and watches that broke; the rest is the log of an operator. */
const warn: World['log'] = (level, message, { warning, error } = {}) => {
  if (level === 'warn') console.error(escaped(`${message}: ${String(warning ?? error)}`));
};
async function yamlOf(raw: Raw): Promise<string> {
  const { dumpYaml } = await import('@kubernetes/client-node');
  return dumpYaml(raw).trimEnd();
}
/** The form in which --output wants an object, or undefined. */
function outputOf({ output }: Asked['flags']): string | undefined {
  if (output === undefined || output === 'json' || output === 'yaml') return output;
  throw new UsageError('--output must be json or yaml');
}
async function show(raw: Raw, output: string): Promise<void> {
  const own = (key: string, value: unknown) => (key === 'managedFields' ? undefined : value);
  const json = JSON.stringify(raw, own, 2);
  say(output === 'json' ? json : await yamlOf(JSON.parse(json)));
}
/** Asks before what nobody can undo. */
async function consent(what: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) throw new UsageError(`${what}: say --yes`);
  const { createInterface } = process.getBuiltinModule('node:readline/promises');
  const asker = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await asker.question(`${what}. Go on? [y/N] `);
  asker.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new Error('nothing was done');
}

/** The same with the place where it is answered, and its first word. */
interface There extends Asked {
  readonly world: World;
  readonly ns: string;
  readonly name: string;
}
async function placed(asked: Asked): Promise<There> {
  const { names, flags } = asked;
  const load = (): Promise<KubeConfig> => loadConfig(flags['kubeconfig'], flags['context']);
  const config = await load();
  const own = config.getContextObject(config.getCurrentContext())?.namespace ?? 'default';
  const world = realWorld(config, warn, load);
  return { ...asked, world, ns: flags['namespace'] ?? own, name: names[0] ?? '' };
}
const getCluster = ({ world, ns, name }: Omit<There, keyof Asked>): Promise<Raw> =>
  api(world, { method: 'GET', path: clusterPath(ns, name) });
const BY = '?fieldManager=statefulcluster-cli';
/** A merge patch that only lands on the very object that was looked at. */
function merge(world: World, path: string, { uid }: Meta, change: Raw): Promise<Raw> {
  const body = { ...change, metadata: { ...change['metadata'], uid } };
  return api(world, { ...MERGE, path: path + BY, body });
}
async function itemsOf(world: World, path: string, wanted: LabelSelector = {}) {
  const labelSelector = selectorText(wanted);
  const list = await api(world, { method: 'GET', path: withQuery(path, { labelSelector }) });
  return (list['items'] ?? []) as readonly Raw[];
}

/** Hands the clusters of a path to `see` at once, after each change and every `everyMs`, until it
 *  has seen enough. False: `limitMs` was over before. */
async function keepSeeing(
  world: World,
  path: string,
  see: (raws: readonly Raw[]) => boolean | Promise<boolean>,
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
    if (await see([...feed.items.values()].map(({ raw }) => raw))) return true;
  }
  return false;
}

const columns = (): number => process.stdout.columns ?? Infinity;
const widthOf = (text: string): number => [...stripVTControlCharacters(text)].length;
type Rows = readonly (readonly string[])[];
const widest = (rows: Rows, i: number): number =>
  rows.reduce((most, row) => Math.max(most, widthOf(row[i] ?? '')), 0);
/** Columns as wide as their widest cell; the last one goes on below itself. */
function tableOf(rows: Rows): string {
  const last = (rows[0]?.length ?? 1) - 1;
  const widths = Array.from({ length: last }, (_, i) => widest(rows, i) + 2);
  const indent = ' '.repeat(widths.reduce((sum, width) => sum + width, 0));
  const lines = rows.map((row) => {
    const cells = widths.map((width, i) => row[i] + ' '.repeat(width - widthOf(row[i] ?? '')));
    return (cells.join('') + folded(row[last] ?? '', indent).slice(indent.length)).trimEnd();
  });
  return lines.join('\n');
}
/** A table with titles. Empty columns are left out, and on a narrow terminal those that `less`
 *  names, one after the other until the rest fits; the last one may fold down to 24. */
function titled(titles: string, rows: Rows, less = ''): string {
  const names = titles.split('  ');
  const all = [names, ...rows];
  const widths = names.map((_, i) =>
    Math.min(widest(all, i), i < names.length - 1 ? Infinity : 24),
  );
  const shown = new Set([...names.keys()].filter((i) => rows.some((row) => row[i])));
  for (const name of less.split(' ')) {
    const sum = [...shown].reduce((width, i) => width + (widths[i] ?? 0) + 2, -2);
    if (sum > columns()) shown.delete(names.indexOf(name));
  }
  const head = names.map((name) => gray(name));
  const kept = [head, ...rows].map((row) => row.filter((_, i) => shown.has(i)));
  return rows.length > 0 ? tableOf(kept) : '';
}
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
  const lines = text.split('\n').slice(0, process.stdout.rows - 1);
  process.stdout.write(`\x1b[?2026h\x1b[H${lines.join('\x1b[K\n')}\x1b[J\x1b[?2026l`);
}

// ── status ──────────────────────────────────────────────────────────────────────────────────────
/** Health of a member or state of a cluster, the gravest first: its look, and why, where nobody
 *  says it better. */
type Look = readonly [glyph: string, paint: (text: string) => string, why?: string];
const LOOKS: Readonly<Record<string, Look>> = {
  Withheld: ['▲', magenta, 'given up, but the brake holds'],
  Stalled: ['×', red],
  Unready: ['▲', red, 'was Ready, and is not'],
  Pending: ['○', yellow, 'no node yet'],
  Starting: ['◐', yellow, 'not Ready yet'],
  Returning: ['↻', cyan, 'between two pods'],
  Updating: ['↻', cyan, 'being updated in place'],
  Ready: ['◕', green, 'Ready for less than minReadySeconds'],
  Retiring: ['◌', gray, 'its identity is over'],
  Suspended: ['‖', gray, 'spec.suspend'],
  Available: ['●', green],
  Retired: ['▫', gray],
};
const rankOf = (look: string): number => Object.keys(LOOKS).indexOf(look);
const lookOf = (word: string): Look => LOOKS[word] ?? ['◐', yellow];
const painted = (look: string, words = look): string =>
  lookOf(look)[1](`${lookOf(look)[0]} ${words}`.trimEnd());
const conditionOf = ({ status }: StatefulCluster, type: string): Condition | undefined =>
  status.conditions?.find((c) => c.type === type);
const trueIn = ({ status }: StatefulCluster, type: string): Condition | undefined =>
  status.conditions?.find((c) => c.type === type && c.status === 'True');
const isObserved = ({ meta, status }: StatefulCluster): boolean =>
  status.observedGeneration === meta.generation;
/** Look and word of a whole cluster: what needs a person, else the reason of Ready. */
function stateIn(c: StatefulCluster): readonly [look: string, word: string] {
  if (trueIn(c, 'ReplacementWithheld')) return ['Withheld', 'Withheld'];
  if (trueIn(c, 'Stalled')) return ['Stalled', 'Stalled'];
  if (isTerminating(c)) return ['Retiring', 'Terminating'];
  if (!isObserved(c)) return ['Pending', 'Unseen'];
  const { status, reason } = conditionOf(c, 'Ready') ?? { status: 'False', reason: 'Starting' };
  return [status === 'True' ? 'Available' : reason in LOOKS ? reason : 'Starting', reason];
}

/** The table of clusters. */
function listText(raws: readonly Raw[], ns: string, now: number): string {
  if (raws.length === 0) return `No StatefulClusters${ns && ` in namespace ${ns}`}.`;
  const all = raws.map((raw) => clusterOf(tamed(raw)));
  const rank = (c: StatefulCluster): number => rankOf(stateIn(c)[0]);
  all.sort((a, b) => rank(a) - rank(b) || (keyOf(a.meta) < keyOf(b.meta) ? -1 : 1));
  const rows = all.map((c) => {
    const { replicas = 0, readyReplicas, updatedReplicas, availableReplicas } = c.status;
    const { replacements, retiredClaims } = c.status;
    const counts = [readyReplicas, updatedReplicas, availableReplicas, replacements, retiredClaims];
    const own = [ns ? '' : c.meta.namespace, c.meta.name, painted(...stateIn(c))];
    const numbers = [`${replicas}/${c.spec.replicas}`, ...counts.map((n) => String(n ?? 0))];
    return [...own, ...numbers, ageText(now - c.meta.createdMs)];
  });
  const titles = 'READY  UP-TO-DATE  AVAILABLE  REPLACED  RETIRED-CLAIMS  AGE';
  const less = 'RETIRED-CLAIMS UP-TO-DATE REPLACED AGE READY AVAILABLE NAMESPACE';
  return titled(`NAMESPACE  NAME  STATE  LIVE  ${titles}`, rows, less);
}

/** What the operator says of all that goes on, without the count that stands before it. */
function progressOf(c: StatefulCluster): string {
  const { message = '' } = conditionOf(c, 'Progressing') ?? {};
  return message.replace(/^\d+ of \d+ members are available(; )?/, '');
}
function headText(c: StatefulCluster, now: number): string {
  const { meta, spec, status } = c;
  const { currentRevision: from, updateRevision: to } = status;
  const facts = [
    `${status.availableReplicas ?? 0} of ${spec.replicas} members are available`,
    `${status.replacements ?? 0} replaced so far`,
    `${ageText(now - meta.createdMs)} old`,
  ];
  const notes = [
    isTerminating(c) && 'It is being deleted.',
    meta.annotations[MARK.paused] === 'true' && `${MARK.paused}=true: only its status is kept.`,
    !isObserved(c) && 'The operator has not seen its spec yet.',
    from !== to && `Revision ${from} → ${to}`,
    progressOf(c),
  ].flatMap((note) => (note ? [folded(note)] : []));
  const title = `${painted(stateIn(c)[0], '')} ${bold(meta.name)} ${gray(`in ${meta.namespace}`)}`;
  return [folded(`${title}  ${facts.join(' · ')}`, ''), ...notes].join('\n');
}

const CALM = ['Available', 'Progressing', 'Ready', 'Reconciling']; // True is no trouble.
/** Conditions that a person must know of, the gravest first, in the words they carry. */
function troubleText(c: StatefulCluster, now: number): string {
  const all = (c.status.conditions ?? []).map(({ type }) => type);
  const texts = unique(['ReplacementWithheld', 'Stalled', ...all]).map((type) => {
    const trouble = CALM.includes(type) ? undefined : trueIn(c, type);
    if (!trouble) return '';
    const about = gray(`${trouble.reason}, for ${sinceText(trouble.lastTransitionTime, now)}`);
    const look = type === 'ReplacementWithheld' ? 'Withheld' : type;
    return `${painted(look, type)} ${about}\n${folded(trouble.message)}`;
  });
  return paragraphs(...texts);
}

/** Of the claims of one identity, the names of their templates. */
const claimsText = (claims: readonly string[], name: string, identity: string): string =>
  claims.map((claim) => claim.replace(`-${name}-${identity}`, '')).join(',') || '-';
function membersText({ meta, status }: StatefulCluster, now: number): string {
  const { members = [], retired = [], replicas = 0, updateRevision } = status;
  const sorted = members.toSorted((a, b) => rankOf(a.health) - rankOf(b.health));
  const rows = sorted.map((m) => {
    const age = birthSecond(m.identity) < 0 ? '-' : ageText(now - birthMs(m.identity));
    const outdated = m.revision !== '' && m.revision !== updateRevision;
    const revision = outdated ? yellow(`${m.revision} outdated`) : m.revision || '-';
    const old = retired.find((r) => r.replacedBy === m.identity);
    const why = [m.reason || lookOf(m.health)[2], old && `replaced ${old.identity}`];
    const place = [painted(m.health), bold(m.identity), m.pod || '-', String(m.index ?? ''), age];
    const claims = claimsText(m.claims, meta.name, m.identity);
    const times = [sinceText(m.since, now), why.filter(Boolean).join('; ')];
    return [...place, m.node || '-', revision, claims, ...times];
  });
  const more = replicas > members.length ? `\n… and ${replicas - members.length} more` : '';
  const titles = 'HEALTH  IDENTITY  POD  INDEX  AGE  NODE  REVISION  CLAIMS  SINCE  WHY';
  return titled(titles, rows, 'CLAIMS AGE REVISION NODE POD SINCE INDEX') + more;
}
/** Identities that are over, and how to free or bring back what is left of them. */
function retiredText({ meta, status }: StatefulCluster, now: number): string {
  const { retired = [], retiredClaims = 0 } = status;
  const rows = retired.map((r) => {
    const claims = claimsText(r.claims, meta.name, r.identity);
    const over = [painted('Retired'), r.identity, sinceText(r.at, now), r.reason];
    return [...over, r.replacedBy || '-', claims, r.message ?? ''];
  });
  const titles = 'OVER  IDENTITY  AGO  REASON  REPLACED-BY  CLAIMS-KEPT  LAST-WORDS';
  const table = titled(titles, rows, 'OVER CLAIMS-KEPT AGO REPLACED-BY');
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
  const c = clusterOf(tamed(raw));
  const tables = [membersText(c, now), retiredText(c, now)];
  return paragraphs(headText(c, now), troubleText(c, now), ...tables);
}

/** Who works on the namespace ('': on any), by the newest Lease that covers it and the server's
 *  clock. `runs` is undefined where no Lease may be read. */
async function leaderOf(world: World, ns: string) {
  const look = async (where: string) => {
    const labelSelector = selectorText({ matchLabels: LEASE_LABELS });
    const path = `/apis/coordination.k8s.io/v1${inNamespace(where)}/leases`;
    const request = { method: 'GET', path: withQuery(path, { labelSelector }) } as const;
    const answer = await world.send(request).catch(() => undefined);
    if (answer?.status !== 200) return undefined;
    const now = Date.parse(answer.headers['date'] ?? '') || world.now();
    const { items } = tamed(answer.body as Raw) as { items?: Raw[] };
    return (items ?? []).flatMap(({ metadata, spec = {} }) => {
      const { holderIdentity: holder = '', leaseDurationSeconds = 0, renewTime } = spec;
      const scope: string = metadata.annotations?.[MARK.namespaces] ?? '';
      const covers = !scope || !ns || scope.split(',').includes(ns);
      const ms = now - Date.parse(renewTime);
      const leads = holder !== '' && ms <= 1000 * leaseDurationSeconds;
      return covers ? [{ holder, ms, leads }] : [];
    });
  };
  const all = await look('');
  const found = all ? [all] : await Promise.all(unique([ns || SYSTEM, SYSTEM]).map(look));
  const leases = found.flatMap((some) => some ?? []).sort((a, b) => a.ms - b.ms);
  const best = leases.find(({ leads }) => leads) ?? leases[0];
  if (!best && found.includes(undefined))
    return { runs: undefined, words: 'Operator: cannot be told, Leases may not be read' };
  if (!best) return { runs: false, words: 'Operator: nobody runs (there is no Lease)' };
  const { holder, ms, leads } = best;
  if (leads) return { runs: true, words: `Operator: ${holder} leads, renewed ${ageText(ms)} ago` };
  const last = `${holder || 'released'}, ${ageText(ms)} ago`;
  return { runs: false, words: `Operator: nobody runs (${last})` };
}

async function status({ world, ns: own, name, flags }: There): Promise<void> {
  const { watch, 'all-namespaces': all } = flags;
  const output = outputOf(flags);
  if (output && watch) throw new UsageError('--watch and --output exclude each other');
  if (name && all) throw new UsageError('NAME and -A exclude each other');
  const ns = all ? '' : own;
  const first = await api(world, { method: 'GET', path: clusterPath(ns, name) });
  if (output) return show(first, output);
  let [operator, staleAt] = ['', 0];
  const textOf = async (raws: readonly Raw[]): Promise<string> => {
    const [now, uptime] = [world.now(), world.uptime()];
    if (uptime >= staleAt) {
      const { runs, words } = await leaderOf(world, ns);
      operator = folded((runs === false ? red : gray)(words), '');
      staleAt = uptime + LIMITS.leaseRetryMs;
    }
    if (!name) return paragraphs(operator, listText(raws, ns, now));
    return paragraphs(operator, raws[0] ? pageText(raws[0], now) : deletedText(name));
  };
  if (!watch) return say(await textOf(name ? [first] : (first['items'] ?? [])));
  const draws = process.stdout.isTTY && kleur.enabled;
  if (draws) say('\n'.repeat(process.stdout.rows)); // What was there stays above.
  const see = async (raws: readonly Raw[]): Promise<boolean> => {
    (draws ? redraw : say)(`${await textOf(raws)}\n`);
    return name !== '' && raws.length === 0;
  };
  // The watch brings the news; on a terminal the ages are drawn anew every second.
  await keepSeeing(world, oneOrAll(ns, name), see, draws ? { everyMs: 1000 } : {});
}
const oneOrAll = (ns: string, name: string): string =>
  withQuery(clusterPath(ns), { fieldSelector: name && `metadata.name=${name}` });
const deletedText = (name: string): string => `${FULL} "${name}" was deleted`;

// ── plan ────────────────────────────────────────────────────────────────────────────────────────
/** The operator's own eyes and decision, on a World that cannot write: the dry-run of a new
 *  revision is not sent, and taken to succeed (`untried`). What speaks against a member is taken
 *  to have been watched for a minute, as by an operator that runs; what only that one remembers
 *  (refusals, earlier restarts, an outage that eases) is not known here. */
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
  const maps = { desks: new Map(), children: new Map(), volumes: new Map(), scopes: new Map() };
  const queue = newQueue(world, 1, async () => undefined); // It is never started.
  const rest = { nodes: undefined, blindUntil: 0, queue, observer: undefined };
  const o: Operator = { world, signal, ...maps, ...rest };
  const feeds = startFeeds(o, { namespaces: [ns], selector: '', workers: 1 });
  await Promise.all(feeds.map((feed) => feed.ready.promise));
  const scope = o.scopes.get(ns);
  const cluster = scope?.clusters.items.get(`${ns}/${name}`);
  if (!scope || !cluster) throw new Error(deletedText(name));
  const desk = deskOf(o, `${ns}/${name}`, cluster.meta.uid);
  const { p } = await decide(o, snapshotOf(o, cluster, desk, scope));
  const since = world.uptime() - LIMITS.trustMs;
  desk.memory = { ...desk.memory, firstSeen: new Map(p.evidence.map((key) => [key, since])) };
  return { ...(await decide(o, snapshotOf(o, cluster, desk, scope))), untried };
}

/** `RetireClaim` reads `retire claim`. A new identity is drawn by chance, so it has no name yet. */
function actionRow(a: Action): string {
  const verb = a.do.replaceAll(/(?<=[a-z])(?=[A-Z])/g, ' ').toLowerCase();
  const isNew = a.do === 'CreateMember' && !isComeback(a.because);
  const marks = 'change' in a ? metaOf({ ...a.change }).annotations : {};
  const more = [
    'replaces' in a && a.replaces && `replaces ${a.replaces}`,
    MARK.retiredPolicy in marks && `policy ${marks[MARK.retiredPolicy]}`,
    'request' in a && `to ${a.request}`,
    a.do === 'UpdatePod' && `to revision ${a.revision}`,
  ];
  const what = isNew ? 'a new one' : nameOf(a);
  return [verb, what, a.because, more.filter(Boolean).join(', ')].join('\t');
}
function actionsText(actions: readonly Action[]): string {
  if (actions.length === 0) return 'The operator would do nothing now.';
  const rows = actions.map(actionRow);
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
  const others = p.members.filter((j) => j.verdict.health !== 'Available' || !isLive(j));
  const reasons: readonly (readonly [title: string, why: string | false | undefined])[] = [
    ['ReplacementWithheld', p.withheld],
    ['Stalled', p.stalled || trueIn(s.cluster, 'Stalled')?.message],
    ['Creations wait', p.held],
    ['The update cannot go on', p.blocked],
    ['Not tried', untried && 'whether the API server takes a pod of the new revision'],
    ['Paused', meta.annotations[MARK.paused] === 'true' && `by the annotation ${MARK.paused}`],
    ['Update', [...updateMessage(s.cluster, p), ...p.notes].join('; ')],
    ['Blind', !s.nodes && 'nodes cannot be read: NodeGone and NodeUnreachable are not judged'],
  ];
  const shown = others.filter((j) => j.member.pod || isLive(j));
  const rows = shown.map((j) => {
    const { health, node, since, reason } = memberStatus(s, j);
    const place = [painted(health), idOf(j), node || '-', j.standing];
    return [...place, sinceText(since, now) || '-', reason];
  });
  const available = live.length - others.filter(isLive).length;
  const counts = `${spec.replicas} wanted, ${live.length} live, ${available} available`;
  return paragraphs(
    `${bold(meta.name)} ${gray(`in ${meta.namespace}`)}  ${counts}`,
    actionsText(p.actions),
    ...reasons.map(([title, why]) => (why ? `${yellow(`▲ ${title}`)}\n${folded(why)}` : '')),
    titled('HEALTH  IDENTITY  NODE  STANDING  FOR  REASON', rows),
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
/** Pods and claims of members of a cluster ('': of any) that are called so, by identity or pod. */
async function partsOf({ world, ns }: There, called: string, of: string) {
  const identity = called.slice(called.lastIndexOf('-') + 1);
  const labelled = { matchLabels: { [MARK.identity]: identity } };
  const find = async (kind: typeof PODS | typeof CLAIMS) => {
    const metas = (await itemsOf(world, pathOf(kind, ns), labelled)).map(metaOf);
    const parts = metas.map((meta) => ({ kind, meta, cluster: meta.labels[MARK.cluster] ?? '' }));
    return parts.filter(({ cluster }) => {
      return (!of || cluster === of) && [identity, podName(cluster, identity)].includes(called);
    });
  };
  return { identity, pods: await find(PODS), claims: await find(CLAIMS) };
}
const isOver = ({ meta }: { readonly meta: Meta }): boolean => MARK.retired in meta.annotations;

async function replace(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const { identity, pods, claims } = await partsOf(at, name, '');
  const living = [...pods, ...claims].filter(({ cluster }) => {
    const own = claims.filter((claim) => claim.cluster === cluster);
    return own.length === 0 || !own.every(isOver);
  });
  const clusters = unique(living.map(({ cluster }) => cluster));
  const [owner = ''] = clusters;
  if (clusters.length === 0) throw new Error(`no living member is called "${name}"`);
  if (clusters.length > 1)
    throw new Error(`${clusters.join(' and ')} have a "${name}": name its pod`);
  const part = living.find(({ meta }) => meta.deletedMs === undefined);
  if (!part) throw new Error(`"${name}" is being deleted already`);
  const { spec } = clusterOf(await getCluster({ world, ns, name: owner }));
  const { whenReplaced } = spec.persistentVolumeClaimRetentionPolicy;
  if (whenReplaced === 'Delete' && claims.length > 0 && !flags['yes'])
    await consent(`${owner} deletes the data of ${identity} for ever (whenReplaced: Delete)`);
  const { kind, meta } = part;
  const change = { metadata: { annotations: { [MARK.replace]: 'true' } } };
  await merge(world, pathOf(kind, ns, meta.name), meta, change);
  const what = kind === PODS ? 'pod' : 'persistentvolumeclaim';
  say(`${what}/${meta.name} annotated: ${owner} gives ${identity} up for a new member`);
}
async function restore(at: There): Promise<void> {
  const { world, ns, name } = at;
  const { spec, status } = clusterOf(await getCluster(at));
  const { identity, pods, claims } = await partsOf(at, at.names[1] ?? '', name);
  const going = claims.find(({ meta }) => meta.deletedMs !== undefined);
  const who = `identity "${identity}" of ${name}`;
  if (claims.length + pods.length === 0) throw new Error(`${who}: no claim is left of it`);
  if (!claims.some(isOver)) throw new Error(`${who} is not retired`);
  if (pods.length > 0) throw new Error(`${who} still has its pod: restore it once that is gone`);
  if (going) throw new Error(`${who}: its claim ${going.meta.name} is being deleted`);
  for (const { meta } of claims.filter(isOver)) {
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
  const labelled = { matchLabels: { [MARK.cluster]: at.name } };
  const all = (await itemsOf(at.world, pathOf(REVISIONS, at.ns), labelled)).map(revisionOf);
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
    const rows = all.map((r) => [String(r.number), escaped(cause(r))]);
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
  await rollBackTo(at, raw, to);
  say(`${FULL}/${name} rolled back`);
}
/** Lands only on the very version that was looked at, so that no edit made meanwhile is lost. The
 *  cause of the change goes back with the template. */
async function rollBackTo({ world, ns, name }: There, raw: Raw, to: Revision): Promise<void> {
  const { [MARK.changeCause]: _, ...others } = dictOf(raw['metadata'].annotations);
  const { [MARK.changeCause]: cause } = to.meta.annotations;
  const annotations = { ...others, ...(cause !== undefined && { [MARK.changeCause]: cause }) };
  const [metadata, spec] = [{ ...raw['metadata'], annotations }, raw['spec']];
  const body = { ...raw, metadata, spec: { ...spec, template: to.template } };
  const path = clusterPath(ns, name) + BY;
  await api(world, { method: 'PUT', path, body }).catch((error: unknown) => {
    if (!(error instanceof ApiError) || error.code !== 409) throw error;
    throw new Error(`${FULL} "${name}" was changed meanwhile: nothing was rolled back, try again`);
  });
}

/** `restart`, `pause` and `resume`: one merge patch, refused where it would change nothing. */
async function edit({ world, ns, name, words }: There): Promise<void> {
  const { meta, spec: old } = clusterOf(await getCluster({ world, ns, name }));
  const { paused } = old.updateStrategy.rollingUpdate;
  const refuse = (why: string): never => {
    throw new Error(`${FULL} "${name}" ${why}`);
  };
  const isRestart = words === 'rollout restart';
  const isPause = words === 'rollout pause';
  if (isRestart && paused) refuse("can't restart while paused (run rollout resume first)");
  if (!isRestart && paused === isPause) refuse(paused ? 'is already paused' : 'is not paused');
  const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date(world.now()).toISOString() };
  const spec = isRestart
    ? { template: { metadata: { annotations } } }
    : { updateStrategy: { rollingUpdate: { paused: isPause } } };
  await merge(world, clusterPath(ns, name), meta, { spec });
  say(`${FULL}/${name} ${isRestart ? 'restarted' : isPause ? 'paused' : 'resumed'}`);
}

/** What the rollout waits for, and why as far as the operator says; or ''. */
function waitsFor(c: StatefulCluster): string {
  const { meta, spec, status } = c;
  const { updatedReplicas: updated = 0, replicas: live = 0, availableReplicas: up = 0 } = status;
  const wanted = Math.max(0, spec.replicas - partitionOf(spec));
  const head = `Waiting for statefulcluster "${meta.name}" rollout to finish`;
  if (!isObserved(c)) return 'Waiting for statefulcluster spec update to be observed...';
  const reasons = [trueIn(c, 'ReplacementWithheld')?.message, progressOf(c)].filter(Boolean);
  const why = reasons.map((reason) => `\n${folded(reason ?? '')}`).join('');
  if (updated < wanted)
    return `${head}: ${updated} out of ${wanted} members have been updated...${why}`;
  if (live > spec.replicas) return `${head}: ${live - spec.replicas} members are still to go...`;
  if (up < spec.replicas)
    return `${head}: ${up} of ${spec.replicas} members are available...${why}`;
  return '';
}
async function rolloutStatus(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const limitMs = durationMs(flags['timeout'] ?? '0');
  const { spec } = clusterOf(await getCluster(at));
  if (spec.updateStrategy.type === 'OnDelete')
    throw new Error('rollout status is only available for RollingUpdate strategy type');
  let [failure, told, aloneAt] = ['', '', Infinity];
  const see = async ([raw]: readonly Raw[]): Promise<boolean> => {
    const c = raw && clusterOf(tamed(raw));
    const stalled = c && isObserved(c) && trueIn(c, 'Stalled')?.message;
    if (stalled) failure = `statefulcluster "${name}" is stalled: ${stalled}`;
    else if (!c) failure = deletedText(name);
    if (!c || failure) return true;
    const wait = waitsFor(c);
    const text = wait || `statefulcluster "${name}" successfully rolled out`;
    if (text !== told) say((told = text));
    const { runs, words } = await leaderOf(world, ns);
    aloneAt = runs === false ? Math.min(aloneAt, world.uptime()) : Infinity;
    if (wait && world.uptime() - aloneAt >= LIMITS.leaseMs) failure = words;
    return wait === '' || failure !== '';
  };
  const limits = { limitMs, everyMs: LIMITS.leaseRetryMs };
  const inTime = await keepSeeing(world, oneOrAll(ns, name), see, limits);
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
const ADOPTS = 'enge.me/adopts'; // On the cluster: UID of the set, name of its newest revision.
const SEAL = 'enge.me/claims'; // On claims: the names of all claims of their identity.
const SETS = 'statefulsets.apps';
const SET_HASH = 'controller.kubernetes.io/hash'; // Label of a StatefulSet's revisions.
const INDEX = 'apps.kubernetes.io/pod-index';
const POD_NAME = 'statefulset.kubernetes.io/pod-name';
const setPath = (ns: string, name = ''): string =>
  `/apis/apps/v1${inNamespace(ns)}/statefulsets${name && `/${name}`}`;
const find = (world: World, path: string): Promise<Raw | undefined> =>
  api(world, { method: 'GET', path }).catch((error: unknown) => {
    if (error instanceof ApiError && error.code === 404) return undefined;
    throw error;
  });

/** The cluster of a set: most fields have the names of ours, and the template stays as it is. */
function clusterFrom({ metadata, spec }: Raw, annotations?: Dict): Raw {
  const { name, namespace, labels } = metadata;
  const start: number = spec.ordinals?.start ?? 0;
  const { rollingUpdate } = spec.updateStrategy ?? {};
  const partition = Math.max(0, (rollingUpdate?.partition ?? 0) - start);
  const readsIndex = JSON.stringify(spec.template).includes(`metadata.labels['${INDEX}']`);
  const claims: readonly Raw[] = spec.volumeClaimTemplates ?? [];
  return {
    apiVersion: 'enge.me/v1alpha1',
    kind: 'StatefulCluster',
    metadata: { name, namespace, labels, annotations },
    spec: {
      podManagementPolicy: 'OrderedReady', // What a StatefulSet has by default.
      ...spec,
      template: revisionTemplate(spec.template),
      volumeClaimTemplates: claims.map(({ metadata: { name, labels, annotations }, spec }) => {
        return { metadata: { name, labels, annotations }, spec };
      }),
      updateStrategy: { ...spec.updateStrategy, rollingUpdate: { ...rollingUpdate, partition } },
      replacementPolicy: 'WhenVolumesLost',
      ordinals: readsIndex ? { start } : undefined,
    },
  };
}

/** What is handed over. Once the set is gone, or going, the label tells its pods. */
async function wardsOf({ world, ns, name }: There, set: Raw | undefined) {
  const marked = { matchLabels: { [MARK.cluster]: name } };
  const all = await itemsOf(world, pathOf(PODS, ns), set?.['spec'].selector ?? marked);
  const pods = all.map(podOf).filter(({ meta }) => !set || isControlledBy(meta, metaOf(set).uid));
  const claims = (await itemsOf(world, pathOf(CLAIMS, ns))).map(claimOf);
  return pods.map((pod) => {
    const identity = identityOf(pod, name);
    const own = claims.filter(({ meta }) => pod.claims.includes(meta.name));
    return { pod, identity, claims: own.filter((c) => isClaimOf(c.meta.name, name, identity)) };
  });
}
/** The revisions of a set, by name: they stay until the last step. */
async function pastOf({ world, ns, name }: There, selector: LabelSelector) {
  const all = await itemsOf(world, pathOf(REVISIONS, ns), selector);
  const own = all.filter((raw) => {
    const meta = metaOf(raw);
    return meta.name.startsWith(`${name}-`) && SET_HASH in meta.labels;
  });
  return new Map(own.map((raw) => [metaOf(raw).name, raw]));
}

const newestOf = (set: Raw): string => set['status']?.updateRevision ?? '';
/** Why this set cannot be adopted now, or ''. */
async function obstacleTo(at: There, set: Raw): Promise<string> {
  const { replicas, selector, updateStrategy: how } = set['spec'];
  const pods = (await wardsOf(at, set)).map(({ pod }) => pod);
  const alive = pods.filter((pod) => !isTerminating(pod) && !isTerminal(pod)).length;
  if (alive !== replicas) return `${alive} of its ${replicas} pods are there: wait for all`;
  const past = await pastOf(at, selector);
  const old = pods.filter(({ meta }) => meta.labels[MARK.revision] !== newestOf(set));
  const lost = old.find(({ meta }) => !past.has(meta.labels[MARK.revision] ?? ''));
  if (old[0] && how?.type !== 'OnDelete' && !(how?.rollingUpdate?.partition > 0))
    return `${old[0].meta.name} is not at its newest revision: let the rollout end first`;
  if (lost) return `the revision of ${lost.meta.name} is not there any more`;
  return specProblem(clusterOf(clusterFrom(set)));
}
/** Whoever would make the set again, by the labels and annotations it is known by. */
const KEEPERS = {
  Helm: /meta\.helm\.sh|=Helm$/,
  'Argo CD': /argocd\.argoproj/,
  Flux: /toolkit\.fluxcd/,
};
/** How templates and scripts tell members by their number. */
const readersOf = (name: string) => ({
  'names members by their number': RegExp(`\\b${name}-\\d+\\b|-0\\.[a-z$]`),
  'takes a number out of the host name':
    /\$\{\w+##\*-\}|(hostname|pod_?name).*(\[0-9\]|\\d|:digit:|##|cut -d|-F ?['"]?-)/i,
  [`reads the label ${POD_NAME}`]: RegExp(`metadata.labels\\['${POD_NAME}'\\]`),
});
const CONFIG_MAP = /"configMap(?:(?:Key)?Ref)?":\{(?:[^{}]|\{[^{}]*\})*?"name":"([^"]+)"/g;
/** What speaks against it unless the user insists. */
async function doubtsAbout({ world, ns, name }: There, { metadata, spec }: Raw) {
  const { ownerReferences: [owner] = [], labels = {}, annotations } = metadata;
  const keys = Object.keys({ ...labels, ...annotations }).join();
  const known = `${keys}=${labels['app.kubernetes.io/managed-by']}`;
  const keeper = owner?.kind ?? Object.entries(KEEPERS).find(([, form]) => form.test(known))?.[0];
  const refs = [...JSON.stringify(spec.template).matchAll(CONFIG_MAP)];
  const texts = new Map([['template', spec.template]]);
  for (const map of unique(refs.map(([, map = '']) => map)))
    texts.set(`ConfigMap ${map}`, await find(world, `/api/v1${inNamespace(ns)}/configmaps/${map}`));
  const doubts = [...texts].flatMap(([place, value]) => {
    const lines = JSON.stringify(value?.data ?? value ?? {}, null, 1).replaceAll('\\n', '\n');
    const found = Object.entries(readersOf(name)).filter(([, form]) => form.test(lines));
    return found.map(([what]) => `its ${place} ${what}`);
  });
  return keeper ? [`${keeper} keeps it, and would make it again`, ...doubts] : doubts;
}
/** What names the set, or one of its pods by number, and must be changed by hand. */
async function leftTo({ world, ns, name }: There, set: Raw): Promise<readonly string[]> {
  const { ordinals, template } = clusterFrom(set)['spec'];
  const isOne = ({ selector = {} }: Raw): boolean => {
    const { [INDEX]: index, [POD_NAME]: pod, ...others } = dictOf(selector.matchLabels ?? selector);
    const isIts = pod?.startsWith(`${name}-`) ?? (index !== undefined && !ordinals);
    return isIts && selectorMatches({ matchLabels: others }, template.metadata?.labels ?? {});
  };
  const scales = ({ scaleTargetRef: ref }: Raw): boolean =>
    ref?.kind === 'StatefulSet' && ref.name === name;
  const selects = 'selects a pod by its number, which new members do not have';
  const kinds: readonly (readonly [string, string, (spec: Raw) => boolean, string])[] = [
    ['/api/v1', 'services', isOne, selects],
    ['/apis/policy/v1', 'poddisruptionbudgets', isOne, selects],
    ['/apis/autoscaling/v2', 'horizontalpodautoscalers', scales, `must scale ${FULL}/${name} now`],
  ];
  const found = kinds.map(async ([group, plural, isMeant, what]) => {
    const list = await find(world, `${group}${inNamespace(ns)}/${plural}`);
    const items = ((list?.['items'] ?? []) as Raw[]).filter(({ spec = {} }) => isMeant(spec));
    return items.map((raw) => `${plural}/${metaOf(raw).name} ${what}`);
  });
  return (await Promise.all(found)).flat();
}

/** Marks and seals what the set still controls, which is harmless under it. */
async function mark(at: There, set: Raw | undefined): Promise<boolean> {
  const { world, ns, name } = at;
  let did = false;
  for (const { pod, identity, claims } of set ? await wardsOf(at, set) : []) {
    const index = set && clusterFrom(set)['spec'].ordinals && { [INDEX]: identity };
    const labels = { ...ourLabels(name, identity), ...index };
    const names = claims.map(({ meta }) => meta.name).sort();
    const all = [[PODS, pod] as const, ...claims.map((claim) => [CLAIMS, claim] as const)];
    for (const [kind, { meta }] of all) {
      const annotations = kind === CLAIMS ? { [SEAL]: names.join(' ') } : {};
      const isLabelled = selectorMatches({ matchLabels: labels }, meta.labels);
      if (isLabelled && selectorMatches({ matchLabels: annotations }, meta.annotations)) continue;
      const change = { metadata: { labels, annotations } };
      await merge(world, pathOf(kind, ns, meta.name), meta, change);
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
/** Makes an earlier revision of the set one of the cluster, and returns its hash. */
async function inherit(at: There, cluster: StatefulCluster, old: Raw): Promise<string> {
  const { $patch: _, ...template } = old['data'].spec.template;
  const hash = revisionHash(template, 0);
  const meta = { ...cluster.meta, name: `${cluster.meta.name}-${hash}` };
  const claimTemplates = claimTemplateNames(cluster.spec);
  const revision = { meta, hash, number: old['revision'], template, claimTemplates };
  const post = { method: 'POST', body: revisionBody(cluster, revision) } as const;
  await api(at.world, { ...post, path: pathOf(REVISIONS, at.ns) + BY }).catch((error: unknown) => {
    if (!isTaken(error)) throw error;
  });
  return hash;
}
/** Makes the cluster the controller of its pods, each at the revision that it has, and waits until
 *  the operator counts them all: only then may it act. */
async function handOver(at: There): Promise<boolean> {
  const cluster = clusterOf(await getCluster(at));
  const { meta, spec } = cluster;
  const past = await pastOf(at, spec.selector);
  past.delete(meta.annotations[ADOPTS]?.split(' ')[1] ?? ''); // That is spec.template.
  const newest = revisionHash(spec.template, 0);
  const hashes: string[] = [];
  for (const { pod } of await wardsOf(at, undefined)) {
    const { name, resourceVersion, labels } = pod.meta;
    const old = past.get(labels[MARK.revision] ?? '');
    const isOurs = isControlledBy(pod.meta, meta.uid);
    const hash = isOurs ? labels[MARK.revision] : old && (await inherit(at, cluster, old));
    hashes.push(hash ?? newest);
    if (isOurs) continue;
    const ownerReferences = [...othersOf(pod, meta), ownerOf(cluster)];
    const change = {
      resourceVersion,
      ownerReferences,
      labels: { [MARK.revision]: hash ?? newest },
    };
    await merge(at.world, pathOf(PODS, at.ns, name), pod.meta, { metadata: change });
  }
  const updated = hashes.filter((hash) => hash === newest).length;
  const see = ([raw]: readonly Raw[]): boolean => {
    const { replicas, updatedReplicas } = raw ? clusterOf(raw).status : {};
    return replicas === hashes.length && updatedReplicas === updated;
  };
  const limits = { limitMs: LIMITS.syncMaxMs };
  if (await keepSeeing(at.world, oneOrAll(at.ns, at.name), see, limits)) return true;
  throw new Error(`the operator does not count all ${hashes.length} pods: does it run? Try again`);
}
/** Deletes the history of the set, which nobody owns any more. */
async function forget(at: There): Promise<boolean> {
  const { spec } = clusterOf(await getCluster(at));
  const all = [...(await pastOf(at, spec.selector)).values()].map(metaOf);
  const free = all.filter(({ owners }) => owners.length === 0);
  for (const { name, uid } of free) {
    const body = { preconditions: { uid } };
    await api(at.world, { method: 'DELETE', path: pathOf(REVISIONS, at.ns, name), body });
  }
  return free.length > 0;
}
async function adopt(at: There): Promise<void> {
  const { world, ns, name, flags } = at;
  const output = outputOf(flags);
  const set = await find(world, setPath(ns, name));
  const old = await find(world, clusterPath(ns, name));
  const of = old?.['metadata'].annotations?.[ADOPTS]?.split(' ')[0];
  if (!set && !of) throw new Error(`${SETS} "${name}" not found`);
  if (set && old && of !== metaOf(set).uid)
    throw new Error(`there is a StatefulCluster "${name}" already`);
  const whole = set && metaOf(set).deletedMs === undefined ? set : undefined;
  if (output && set) return show(clusterFrom(set), output);
  const create = async (dryRun: string): Promise<unknown> => {
    if (old || !set) return false;
    const notes = { [MARK.paused]: 'true', [ADOPTS]: `${metaOf(set).uid} ${newestOf(set)}` };
    const path = clusterPath(ns) + BY + dryRun;
    return api(world, { method: 'POST', path, body: clusterFrom(set, notes) });
  };
  const resume = async (): Promise<unknown> => {
    const change = { metadata: { annotations: { [MARK.paused]: null, [ADOPTS]: null } } };
    return merge(world, clusterPath(ns, name), metaOf(await getCluster(at)), change);
  };
  if (whole) {
    const doubts = flags['force'] ? [] : await doubtsAbout(at, whole);
    const doubt = doubts.length > 0 ? `${doubts.join('; ')} (--force adopts it all the same)` : '';
    const why = (await obstacleTo(at, whole)) || doubt;
    if (why) throw new Error(`${SETS} "${name}" cannot be adopted: ${why}`);
    await create('&dryRun=All'); // What the API server has against it, it says now.
  }
  const steps: readonly (readonly [words: string, run: () => Promise<unknown>])[] = [
    ['label its pods and claims', () => mark(at, whole)],
    ['create the cluster, paused', () => create('')],
    ['delete the set, but not its pods', () => orphan(at, set)],
    ['make the cluster the controller of the pods', () => handOver(at)],
    ['delete the history of the set', () => forget(at)],
    ['let the operator act', resume],
  ];
  const others = set ? await leftTo(at, set) : [];
  say(`${SETS}/${name} becomes ${FULL}/${name}, and no pod is restarted`);
  for (const [words, run] of steps) {
    if (flags['dry-run']) say(`  · ${words}`);
    else say(`  ✓ ${words}${(await run()) ? '' : gray(' (found done)')}`);
  }
  say(`New members have random names${others.length > 0 ? '. Yours to change:' : ''}`);
  for (const other of others) say(`  ${other}`);
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
const FLAGS = `
-w --watch                      show every change, until Ctrl-C
-A --all-namespaces             clusters of all namespaces
-o --output FORMAT              json or yaml: the object as it is, or would be
   --revision N                 show the template of this revision
   --to-revision N              default: the one before the newest
   --timeout TIME               give up after 90s, 5m, 1h30m; default: never
-y --yes                        do not ask, though data is deleted
   --dry-run                    say what would be done
   --force                      in spite of doubts
   --image IMAGE                in place of the released one
   --namespaced                 with rights in the namespace of -n only
   --selector LABELS            only StatefulClusters with these labels
   --workers N                  clusters worked on at a time (4)
   --leader-elect=false         without a Lease: where no other operator runs
   --leader-elect-namespace NS  of the Lease; default: the pod's, else of -n
   --probe-addr ADDR            [HOST]:PORT of probes (:8080; 0: none)
   --log FORMAT                 json or pretty; default: pretty on a terminal
-n --namespace NS               default: that of the context
   --context NAME               of the kubeconfig; default: its current one
   --kubeconfig FILE            default: $KUBECONFIG or ~/.kube/config
-h --help                       print this`;
/** A command and its words, what it does, its flags (`+`: those of all that ask a server) if they
 *  are not just these; below it what help says besides. */
const COMMANDS = `
run: replace lost members, until stopped: + all-namespaces selector workers leader-elect \
leader-elect-namespace probe-addr log
  -n may be given several times; without it and -A, those that $WATCH_NAMESPACE
  lists (empty: all), else that of the context. In a pod, its account is used.
status [NAME]: the clusters, or one and its members: watch all-namespaces output +
  First who leads. Clusters in trouble and unhealthy members stand above others.
plan NAME: what the operator would do now, and why
  The operator's own decision, on what is there now. Only reads are sent.
replace POD|IDENTITY: give a member up for a new one: yes +
  Annotates its pod, or a claim, ${MARK.replace}=true: its claims are retired,
  and a new identity takes its place. An available member waits for its turn.
restore NAME IDENTITY|POD: bring a retired identity back with its claims
  Annotates its claims ${MARK.restore}=true: it returns as the next member
  for which there is room.
rollout status NAME: wait until a rollout is through: timeout +
  Exit code 1 when it stalls, nobody runs, or the time is up.
rollout history NAME: revisions of the template: revision +
rollout undo NAME: go back to an earlier revision: to-revision +
  Replaces spec.template as a whole, unless the spec is edited meanwhile.
rollout restart NAME: restart every member, within the budget
rollout pause NAME: stop updates, not replacements
rollout resume NAME: go on with updates
adopt STATEFULSET: turn it into a StatefulCluster: dry-run output force +
  No pod is restarted. Interrupted, it goes on when it is repeated. It refuses
  what somebody would make again, and what reads a number out of a name.
manifest: what installs the operator, for kubectl apply -f -: image namespaced namespace help
  With --namespaced its last objects let it read nodes and volumes: take or
  leave them. The namespace must exist.
completion SHELL: what completes these words in bash or zsh: help
  For bash: source <(${PROGRAM} completion bash)
version: print the version: help
help [COMMAND] [WORD]: explain a command and its flags: help`;
type Acts<T> = Readonly<Record<string, (asked: T) => unknown>>;
const version = (): void => say(VERSION);
const HERE: Acts<Asked> = { run, manifest, completion, version, help };
const THERE: Acts<There> = {
  status,
  plan: showPlan,
  replace,
  restore,
  adopt,
  'rollout status': rolloutStatus,
  'rollout history': history,
  'rollout undo': undo,
  'rollout restart': edit,
  'rollout pause': edit,
  'rollout resume': edit,
};
const flagList = FLAGS.slice(1)
  .split('\n')
  .map((line) => {
    const [, short, flag = '', value] =
      /^(?:-(\w)|  ) --([a-z-]+)\S*(?: ([A-Z]+))? /.exec(line) ?? [];
    return { line: `  ${line}`, short, flag, value };
  });
type Command = ReturnType<typeof commandFrom>;
function commandFrom(text: string) {
  const [head = '', ...more] = text.split('\n');
  const [usage = '', about = '', own = '+'] = head.split(': ');
  const words = usage.replace(/ [[A-Z].*/, '');
  const rest = usage.slice(words.length).split(' ').slice(1);
  const takes = own.replace('+', 'namespace context kubeconfig help').split(' ');
  return { usage, words, rest, about, takes, more: more.join('\n') };
}
const commands = COMMANDS.slice(1)
  .split(/\n(?! )/)
  .map(commandFrom);
const commandOf = (words: readonly string[]): Command | undefined =>
  commands.find((c) => c.words === words.join(' '));

/** Does `a` become `b` by so many letters changed, added or left out? */
function isNear(a: string, b: string, edits: number): boolean {
  if (a === '' || b === '') return a.length + b.length <= edits;
  const [x, y] = [a.slice(1), b.slice(1)];
  if (a[0] === b[0]) return isNear(x, y, edits);
  const then = (p: string, q: string): boolean => isNear(p, q, edits - 1);
  return edits > 0 && (then(x, y) || then(x, b) || then(a, y));
}
function unknown([first = '', second = '']: readonly string[]): UsageError {
  const words = first === 'rollout' ? `${first} ${second}`.trim() : first;
  const near = commands.find((c) => isNear(words, c.words, 2));
  const hint = near ? `did you mean "${near.words}"?` : `see ${PROGRAM} help`;
  return new UsageError(`there is no command "${words}": ${hint}`);
}

function help({ names }: Pick<Asked, 'names'>): void {
  const one = commandOf(names);
  if (one) {
    const lines = flagList.flatMap(({ flag, line }) => (one.takes.includes(flag) ? [line] : []));
    const head = `${PROGRAM} ${one.usage}\n  ${one.about}`;
    return say(paragraphs(head, one.more, lines.join('\n')));
  }
  const some = commands.filter((c) => c.words.startsWith(names.join(' ')));
  if (some.length === 0) throw unknown(names);
  const table = tableOf(some.map(({ usage, about }) => [`  ${usage}`, about]));
  say(`statefulcluster ${VERSION}: stateful pods whose identity is never re-used\n\n${table}\n`);
  say(`${PROGRAM} help COMMAND explains each with its flags.`);
}
function completion({ names: [shell = ''] }: Asked): void {
  if (!['bash', 'zsh'].includes(shell)) throw new UsageError('completion is for bash or zsh');
  const byLength = commands.toSorted((a, b) => b.words.length - a.words.length);
  const flagsAfter = byLength.map(({ words, takes }) => {
    return `  *' ${words} '*) next='--${takes.join(' --')}' ;;`;
  });
  const firsts = unique(commands.map(({ words }) => words.split(' ')[0]));
  const seconds = commands.flatMap(({ words }) => words.split(' ')[1] ?? []);
  const head = shell === 'zsh' ? 'autoload -U +X bashcompinit && bashcompinit\n' : '';
  say(`${head}_statefulcluster() {
  local next
  case " \${COMP_WORDS[*]:1:COMP_CWORD-1} " in
${flagsAfter.join('\n')}
  *' rollout '*) next='${seconds.join(' ')}' ;;
  *) next='${firsts.join(' ')}' ;;
  esac
  COMPREPLY=($(compgen -W "$next" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _statefulcluster statefulcluster`);
}

/** Names may come as kubectl has them; with another kind they are no names. */
const KINDS: readonly (readonly [word: RegExp, kind: RegExp])[] = [
  [/NAME/, /^(stc|statefulclusters?(\.enge\.me)?)\//],
  [/POD/, /^(po|pods?)\//],
  [/SET/, /^(sts|statefulsets?(\.apps)?)\//],
];
const kindOf = (word = ''): RegExp => KINDS.find(([form]) => form.test(word))?.[1] ?? /^$/;
/** All words and flags, wherever they stand. */
function readArgs(argv: readonly string[]) {
  const options = Object.fromEntries(
    flagList.map(({ flag, short, value }) => {
      const type = value ? ('string' as const) : ('boolean' as const);
      return [flag, { type, multiple: flag === 'namespace', ...(short && { short }) }];
    }),
  );
  const args = argv.map((arg) => {
    // As Go's flags take it, and so as other operators do.
    const [, flag = '', truth] = /^--([a-z-]+)=(true|false)$/.exec(arg) ?? [];
    return options[flag]?.type === 'boolean' ? `--${truth === 'false' ? 'no-' : ''}${flag}` : arg;
  });
  try {
    const config = { args, options, allowPositionals: true, allowNegative: true };
    const { values, positionals } = parseArgs(config);
    const isSaid = ([flag, v]: [string, unknown]) => v !== false || flag === 'leader-elect';
    const given = Object.entries(values)
      .filter(isSaid)
      .map(([flag, v]) => [flag, String(v)]);
    return { words: positionals, asked: Object.fromEntries(given) as Asked['flags'] };
  } catch (error) {
    throw new UsageError(wordsOf(error).split('. ')[0]);
  }
}
/** Finds the command and runs it. */
async function obey(argv: readonly string[]): Promise<unknown> {
  const { words, asked } = readArgs(argv.map((arg) => (arg === '--version' ? 'version' : arg)));
  const command = commandOf(words.slice(0, 2)) ?? commandOf(words.slice(0, 1));
  if (asked['help'] || words.length === 0)
    return help({ names: command?.words.split(' ') ?? words });
  if (!command) throw unknown(words);
  const { usage, rest, takes } = command;
  const given = words.slice(command.words.split(' ').length);
  const names = given.map((text, i) => text.replace(kindOf(rest[i]), ''));
  const least = rest.filter((word) => !word.startsWith('[')).length;
  const [extra] = names.slice(rest.length);
  if (extra !== undefined) throw new UsageError(`"${extra}" is one too many: ${PROGRAM} ${usage}`);
  if (names.length < least) throw new UsageError(`usage: ${PROGRAM} ${usage}`);
  const stray = Object.keys(asked).find((flag) => !takes.includes(flag));
  if (stray) throw new UsageError(`"${command.words}" has no --${stray}`);
  const all = [...names, ...(asked['namespace']?.split(',') ?? [])];
  const odd = all.find((name) => !/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name));
  if (odd !== undefined) throw new UsageError(`"${odd}" is not a name`);
  const what = { words: command.words, names, flags: asked };
  const act = THERE[command.words];
  return act ? act(await placed(what)) : HERE[command.words]?.(what);
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
    console.error(`statefulcluster: ${escaped(wordsOf(error).split('\n')[0] ?? '')}`);
    return error instanceof UsageError ? 2 : 1;
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
