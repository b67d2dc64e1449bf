import { ISignal, Signal } from '@lumino/signaling';
import { asProblem, IApi } from './api';
import { IEntry, IFolder, IProblem } from './types';

/** A folder at a site that somebody looks at. The last content stays in view until the next one is there. */
export class FolderModel {
  constructor(private api: IApi) {}

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  site = '';
  path = '';
  entries: readonly IEntry[] = [];
  truncated = false;
  loading = false;
  loaded = false;
  problem: IProblem | null = null;

  /** Go to a folder. Answers that were overtaken by a later call are dropped. */
  async open(site: string, path: string): Promise<void> {
    const turn = ++this._turn;
    const moved = site !== this.site || path !== this.path;
    this.loading = true;
    this._changed.emit();
    let found: IFolder | null = null;
    let problem: IProblem | null = null;
    try {
      found = await this.api.call<IFolder>('files.list', { site, path, limit: 10000 });
    } catch (error) {
      problem = asProblem(error);
    }
    if (turn !== this._turn) {
      return;
    }
    this.loading = false;
    this.problem = problem;
    if (found || moved) {
      this.site = site;
      this.path = path;
      this.entries = found ? inOrder(found.entries) : [];
      this.truncated = found?.truncated ?? false;
      this.loaded = found !== null;
    }
    this._changed.emit();
  }

  async refresh(): Promise<void> {
    await this.open(this.site, this.path);
  }

  async makeFolder(name: string): Promise<void> {
    await this.api.call('files.mkdir', { site: this.site, path: below(this.path, name) });
    await this.refresh();
  }

  dispose(): void {
    this._turn += 1;
    Signal.clearData(this);
  }

  private _turn = 0;
  private _changed = new Signal<this, void>(this);
}

export function below(path: string, name: string): string {
  return path ? `${path}/${name}` : name;
}

/** The folders on the way to a path, beginning with the top: `[name, path]`. */
export function crumbs(path: string): [string, string][] {
  const parts = path.split('/').filter(Boolean);
  return parts.map((name, index) => [name, parts.slice(0, index + 1).join('/')]);
}

/** Why a name cannot be that of a new folder; empty when it can. */
export function nameTrouble(name: string): string {
  if (!name.trim()) {
    return 'Give a name.';
  }
  if (name.includes('/') || name === '.' || name === '..') {
    return 'A name has no / in it and is not . or ..';
  }
  return name.length > 200 ? 'The name is too long.' : '';
}

const collator = new Intl.Collator('en', { numeric: true });

function inOrder(entries: readonly IEntry[]): IEntry[] {
  const rank = (entry: IEntry) => (entry.type === 'folder' ? 0 : 1);
  return [...entries].sort((a, b) => rank(a) - rank(b) || collator.compare(a.name, b.name));
}
