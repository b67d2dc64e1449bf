/** What the runner says, as it comes over the wire. Times are seconds since 1970, sizes bytes. */

export interface IProblem {
  code: string;
  message: string;
  where: string;
  remedy: string;
  retry: boolean;
}

export interface IQueue {
  running: number;
  pending: number;
  mine_running: number;
  mine_pending: number;
  nodes_idle: number;
  nodes_total: number;
  nodes_down: number;
}

export interface ICapability {
  action: string;
  title: string;
  allowed: boolean;
  reason: string;
  remedy: string;
}

export type SiteState = 'up' | 'connecting' | 'lost' | 'refused' | 'unavailable';

export interface ISite {
  name: string;
  title: string;
  description: string;
  state: SiteState;
  reason: string;
  remedy: string;
  since: number | null;
  account: string;
  login_host: string;
  queue: IQueue | null;
  free: { total: number; available: number } | null;
  allocations: { name: string; remaining_hours: number | null }[];
  capabilities: ICapability[];
  applications: Record<string, string>;
}

export interface IEntry {
  name: string;
  type: 'file' | 'folder' | 'link' | 'other';
  size: number;
  mtime: number;
}

export interface IFolder {
  site: string;
  path: string;
  entries: IEntry[];
  truncated: boolean;
}

export type TransferState = 'waiting' | 'moving' | 'done' | 'failed' | 'cancelled';

export interface ITransfer {
  id: string;
  source: string;
  target: string;
  state: TransferState;
  bytes_done: number;
  bytes_total: number | null;
  files_done: number;
  files_total: number | null;
  rate: number | null;
  started: number | null;
  ended: number | null;
  error: IProblem | string | null;
}

export type RunState = 'waiting' | 'running' | 'succeeded' | 'failed' | 'cancelled';
export type StepState = RunState | 'moving' | 'queued' | 'unknown';

export interface IMetric {
  value: number | string | null;
  unit?: string;
  title?: string;
}

export interface IStep {
  id: string;
  title: string;
  job_type: string;
  site: string | null;
  site_wish: string | null;
  after: string[];
  state: StepState;
  why: string;
  attempt: number;
  job_id: string | null;
  slurm_state: string | null;
  node: string | null;
  queued_at: number | null;
  started: number | null;
  ended: number | null;
  fraction: number | null;
  bytes_moved: number | null;
  metrics: Record<string, IMetric> | null;
  pictures: { name: string; title: string }[] | null;
  problems: string[] | null;
  error: IProblem | string | null;
}

export interface IRun {
  id: string;
  template: string;
  title: string;
  project: string;
  parameters: Record<string, unknown>;
  state: RunState;
  reason: string;
  created: number;
  ended: number | null;
  steps: IStep[];
}

export interface ITemplateInfo {
  name: string;
  title: string;
  description: string;
  version: string;
}

export interface ITemplate extends ITemplateInfo {
  schema: ISchema;
  steps: { id: string; title: string; default_site: string | null }[];
}

/** The part of JSON Schema that templates use, with their hints for the form. */
export interface ISchema {
  title?: string;
  description?: string;
  required?: string[];
  properties?: Record<string, IFieldSchema>;
}

export interface IFieldSchema {
  type?: string;
  title?: string;
  description?: string;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  enum?: unknown[];
  'x-order'?: number;
  'x-group'?: string;
  'x-unit'?: string;
  'x-kind'?: string;
  'x-advanced'?: boolean;
}

export interface IStatus {
  connected: boolean;
  runner: { state: 'starting' | 'up' | 'away'; reason: string };
}

/** A message of the event socket: the thing that changed, as it is now. */
export interface IEvent {
  type: 'run' | 'step' | 'site' | 'transfer' | 'runner' | string;
  [key: string]: unknown;
}
