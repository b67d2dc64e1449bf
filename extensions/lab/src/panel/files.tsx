import * as React from 'react';
import { crumbs, below, FolderModel } from '../folder';
import { moment, size } from '../format';
import { IEntry, ISite } from '../types';
import { useId } from './hooks';
import { Hint, Notice } from './pieces';

const ROW = 24;
const EXTRA = 12;

interface IBrowser {
  folder: FolderModel;
  sites: readonly ISite[];
  selected: string | null;
  onSelect: (name: string | null) => void;
  rows?: number;
  children?: React.ReactNode;
}

/** Choose a site, go through its folders, select an entry. It is used by the Data tab and by the file picker alike. */
export function Browser({ folder, sites, selected, onSelect, rows = 14, children }: IBrowser): JSX.Element {
  const id = useId('site');
  const go = (site: string, path: string) => {
    onSelect(null);
    void folder.open(site, path);
  };
  return (
    <div className="dcde-Browser" data-testid="dcde-browser" data-site={folder.site} data-path={folder.path} aria-busy={folder.loading}>
      <div className="dcde-Field-line">
        <label htmlFor={id}>Site</label>
        <select
          id={id}
          className="jp-mod-styled"
          value={folder.site}
          data-testid="dcde-browser-site"
          onChange={event => go(event.target.value, '')}
        >
          {!folder.site && <option value="" />}
          {sites.map(site => (
            <option key={site.name} value={site.name} disabled={site.state === 'unavailable'}>
              {site.title}
              {site.state === 'up' ? '' : ` (${site.state === 'unavailable' ? 'not available' : site.state})`}
            </option>
          ))}
        </select>
      </div>
      {folder.site && <Crumbs site={folder.site} path={folder.path} onGo={go} />}
      {children}
      {folder.problem && <Notice problem={folder.problem} onRetry={folder.problem.retry ? () => void folder.refresh() : undefined} />}
      {folder.loaded && folder.entries.length === 0 && !folder.loading ? (
        <div className="dcde-Browser-empty" data-testid="dcde-browser-empty">
          This folder is empty.
        </div>
      ) : (
        <Entries
          key={`${folder.site}:${folder.path}`}
          entries={folder.entries}
          rows={rows}
          selected={selected}
          onSelect={onSelect}
          onOpen={entry => entry.type === 'folder' && go(folder.site, below(folder.path, entry.name))}
          onUp={() => folder.path && go(folder.site, folder.path.split('/').slice(0, -1).join('/'))}
        />
      )}
      {folder.site && !folder.loaded && folder.loading && <Hint>The folder is being read …</Hint>}
      {folder.truncated && <Hint>Only the first {folder.entries.length} entries are shown.</Hint>}
    </div>
  );
}

function Crumbs({ site, path, onGo }: { site: string; path: string; onGo: (site: string, path: string) => void }): JSX.Element {
  const parts = crumbs(path);
  return (
    <nav className="dcde-Crumbs" aria-label="Folder">
      <button type="button" onClick={() => onGo(site, '')} aria-current={path === '' ? 'page' : undefined} title="My folder at this site">
        My folder
      </button>
      {parts.map(([name, to]) => (
        <React.Fragment key={to}>
          <span aria-hidden="true">/</span>
          <button type="button" onClick={() => onGo(site, to)} aria-current={to === path ? 'page' : undefined}>
            {name}
          </button>
        </React.Fragment>
      ))}
    </nav>
  );
}

interface IEntries {
  entries: readonly IEntry[];
  rows: number;
  selected: string | null;
  onSelect: (name: string | null) => void;
  onOpen: (entry: IEntry) => void;
  onUp: () => void;
}

/** The entries, of which only those in view are in the document, so that thousands scroll smoothly. */
function Entries({ entries, rows, selected, onSelect, onOpen, onUp }: IEntries): JSX.Element {
  const id = useId('entry');
  const box = React.useRef<HTMLDivElement>(null);
  const [top, setTop] = React.useState(0);
  const at = entries.findIndex(entry => entry.name === selected);
  const first = Math.max(0, Math.floor(top / ROW) - EXTRA);
  const last = Math.min(entries.length, Math.ceil(top / ROW) + rows + EXTRA);
  const go = (to: number) => {
    const index = Math.min(entries.length - 1, Math.max(0, to));
    onSelect(entries[index]?.name ?? null);
    const view = box.current;
    if (view) {
      view.scrollTop = Math.min(index * ROW, Math.max(view.scrollTop, (index + 1) * ROW - view.clientHeight));
      setTop(view.scrollTop);
    }
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? 0 : at - 1,
      Home: 0,
      End: entries.length - 1,
      PageDown: at + rows,
      PageUp: at - rows
    };
    if (event.key in moves) {
      go(moves[event.key]);
    } else if (event.key === 'Enter' && at >= 0) {
      onOpen(entries[at]);
    } else if (event.key === 'Backspace') {
      onUp();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      ref={box}
      className="dcde-Entries"
      style={{ height: Math.min(rows, Math.max(3, entries.length)) * ROW }}
      role="listbox"
      aria-label="Files and folders"
      aria-activedescendant={at >= first && at < last ? `${id}-${at}` : undefined}
      tabIndex={0}
      data-testid="dcde-entries"
      data-count={entries.length}
      onKeyDown={onKeyDown}
      onScroll={event => setTop(event.currentTarget.scrollTop)}
    >
      <div style={{ height: entries.length * ROW, position: 'relative' }} role="presentation">
        {entries.slice(first, last).map((entry, index) => (
          <div
            key={entry.name}
            id={`${id}-${first + index}`}
            className="dcde-Entry"
            style={{ top: (first + index) * ROW, height: ROW }}
            role="option"
            aria-selected={entry.name === selected}
            aria-setsize={entries.length}
            aria-posinset={first + index + 1}
            title={entry.name}
            data-testid="dcde-entry"
            data-name={entry.name}
            data-type={entry.type}
            onClick={() => onSelect(entry.name)}
            onDoubleClick={() => onOpen(entry)}
          >
            <EntryIcon type={entry.type} />
            {entry.type === 'folder' ? (
              <span
                className="dcde-Entry-name dcde-mod-folder"
                onClick={event => {
                  event.stopPropagation();
                  onOpen(entry);
                }}
              >
                {entry.name}
              </span>
            ) : (
              <span className="dcde-Entry-name">{entry.name}</span>
            )}
            <span className="dcde-Entry-size">{entry.type === 'file' ? size(entry.size) : ''}</span>
            <span className="dcde-Entry-date">{moment(entry.mtime)}</span>
          </div>
        ))}
      </div>
    </div>
  );
}

function EntryIcon({ type }: { type: IEntry['type'] }): JSX.Element {
  return (
    <svg className={`dcde-Entry-icon dcde-mod-${type}`} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      {type === 'folder' ? (
        <path d="M1.5 3h4.6l1.5 1.7h6.9v8.3h-13z" />
      ) : (
        <path className="dcde-line" d={type === 'link' ? 'M6 10l4-4m-5 1-2 2a2 2 0 0 0 3 3l2-2m3-1 2-2a2 2 0 0 0-3-3L8 6' : 'M4 2h5l3 3v9H4zM9 2v3h3'} />
      )}
    </svg>
  );
}
