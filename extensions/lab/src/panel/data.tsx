import * as React from 'react';
import { asProblem } from '../api';
import { below, FolderModel, nameTrouble } from '../folder';
import { IProblem, ISite } from '../types';
import { Dialog } from './dialog';
import { Browser } from './files';
import { useFolder, useId, useModel } from './hooks';
import { Button, Hint, Notice } from './pieces';
import { Transfers } from './transfers';

/** The storage of the sites: look through it, make folders, copy from one site to another. */
export function DataView(): JSX.Element {
  const model = useModel();
  const folder = useFolder(model.api);
  const [selected, select] = React.useState<string | null>(null);
  const [dialog, setDialog] = React.useState<'folder' | 'copy' | null>(null);
  const visible = model.view.tab === 'data';
  const place = model.view.place;
  const sites = model.sites;
  React.useEffect(() => {
    if (visible && place) {
      const [site, path] = split(place);
      select(null);
      void folder.open(site, path);
      model.show({ place: null });
    } else if (visible && sites?.length && !folder.site && !folder.loading) {
      const first = sites.find(site => site.state === 'up') ?? sites[0];
      void folder.open(first.name, '');
    }
  }, [visible, place, sites !== null]);
  const finished = model.transfers.filter(item => item.state === 'done' && split(item.target)[0] === folder.site).length;
  React.useEffect(() => {
    if (visible && folder.loaded) {
      void folder.refresh();
    }
  }, [finished]);
  if (sites === null) {
    return <Hint>Your sites are being read …</Hint>;
  }
  return (
    <div className="dcde-Data">
      <Browser folder={folder} sites={sites} selected={selected} onSelect={select}>
        <div className="dcde-Toolbar" role="group" aria-label="Actions">
          <Button testid="dcde-new-folder" disabled={!folder.loaded} onClick={() => setDialog('folder')}>
            New folder
          </Button>
          <Button testid="dcde-copy" disabled={selected === null} onClick={() => setDialog('copy')}>
            Copy to site …
          </Button>
          <Button kind="quiet" testid="dcde-refresh" disabled={!folder.site} onClick={() => void folder.refresh()}>
            Refresh
          </Button>
        </div>
      </Browser>
      <p className="dcde-quiet dcde-Data-hint" data-testid="dcde-selected">
        {selected === null ? 'Select a file or folder to copy it.' : `Selected: ${selected}`}
      </p>
      <Transfers transfers={model.transfers} />
      {dialog === 'folder' && <NewFolder folder={folder} onClose={() => setDialog(null)} />}
      {dialog === 'copy' && selected !== null && (
        <CopyDialog
          source={`${folder.site}:${below(folder.path, selected)}`}
          name={selected}
          sites={sites}
          from={folder.site}
          onClose={() => setDialog(null)}
        />
      )}
    </div>
  );
}

function split(place: string): [string, string] {
  const at = place.indexOf(':');
  return at < 0 ? [place, ''] : [place.slice(0, at), place.slice(at + 1)];
}

function NewFolder({ folder, onClose }: { folder: FolderModel; onClose: () => void }): JSX.Element {
  const id = useId('new-folder');
  const [name, setName] = React.useState('');
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [tried, setTried] = React.useState(false);
  const wrong = nameTrouble(name);
  const make = async (event: React.FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (wrong) {
      return;
    }
    try {
      await folder.makeFolder(name.trim());
      onClose();
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  return (
    <Dialog
      title="New folder"
      testid="dcde-new-folder-dialog"
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>Go back</Button>
          <Button kind="primary" type="submit" form={`${id}-form`} testid="dcde-new-folder-make">
            Make folder
          </Button>
        </>
      }
    >
      <form id={`${id}-form`} onSubmit={event => void make(event)} noValidate>
        <label htmlFor={id}>Name</label>
        <input
          id={id}
          className="jp-mod-styled"
          value={name}
          autoFocus
          autoComplete="off"
          aria-invalid={tried && wrong !== ''}
          aria-describedby={`${id}-wrong`}
          onChange={event => setName(event.target.value)}
        />
        <p id={`${id}-wrong`} className="dcde-Field-trouble">
          {tried ? wrong : ''}
        </p>
        {problem && <Notice problem={problem} />}
      </form>
    </Dialog>
  );
}

interface ICopyDialog {
  source: string;
  name: string;
  sites: readonly ISite[];
  from: string;
  onClose: () => void;
}

/** Choose where a copy goes; it then moves straight from site to site. */
function CopyDialog({ source, name, sites, from, onClose }: ICopyDialog): JSX.Element {
  const model = useModel();
  const folder = useFolder(model.api);
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [busy, setBusy] = React.useState(false);
  React.useEffect(() => {
    const other = sites.find(site => site.name !== from && site.state === 'up') ?? sites.find(site => site.name !== from);
    if (other) {
      void folder.open(other.name, '');
    }
  }, []);
  const copy = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await model.copy(source, `${folder.site}:${folder.path ? `${folder.path}/` : ''}`);
      onClose();
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Dialog
      title={`Copy ${name}`}
      testid="dcde-copy-dialog"
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>Go back</Button>
          <Button kind="primary" testid="dcde-copy-start" disabled={busy || !folder.loaded} onClick={() => void copy()}>
            Copy here
          </Button>
        </>
      }
    >
      <p className="dcde-quiet">Open the folder that the copy shall go into.</p>
      <Browser folder={folder} sites={sites} selected={null} onSelect={() => undefined} rows={8} />
      {problem && <Notice problem={problem} />}
    </Dialog>
  );
}
