import * as React from 'react';
import { below } from '../folder';
import { size } from '../format';
import { IEntry, ISite } from '../types';
import { Dialog } from '../panel/dialog';
import { Browser } from '../panel/files';
import { useFolder, useModel } from '../panel/hooks';
import { Button } from '../panel/pieces';
import { IField } from './schema';

const MOVIES = ['.mrcs', '.tiff', '.tif', '.eer', '.mrc'];

interface IPicker {
  field: IField;
  value: string;
  sites: readonly ISite[];
  onPick: (value: string) => void;
  onClose: () => void;
}

/** Choose a file, or all files of one kind in a folder, by looking instead of typing. */
export function Picker({ field, value, sites, onPick, onClose }: IPicker): JSX.Element {
  const model = useModel();
  const folder = useFolder(model.api);
  const [selected, select] = React.useState<string | null>(null);
  React.useEffect(() => {
    const place = /^([a-z][a-z0-9-]*):(.*)$/.exec(value);
    const site = sites.find(item => item.name === place?.[1]) ?? sites.find(item => item.state === 'up') ?? sites[0];
    if (site) {
      const path = place && place[1] === site.name ? place[2].split('/').slice(0, -1).join('/') : '';
      void folder.open(site.name, path);
    }
  }, []);
  const entry = folder.entries.find(item => item.name === selected);
  const found = choiceOf(field, entry, folder.entries);
  const choice = found && `${folder.site}:${below(folder.path, found.name)}`;
  return (
    <Dialog
      title={`Choose: ${field.title}`}
      testid="dcde-picker"
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>Go back</Button>
          <Button
            kind="primary"
            testid="dcde-picker-use"
            disabled={!choice}
            onClick={() => {
              onPick(choice as string);
              onClose();
            }}
          >
            Use
          </Button>
        </>
      }
    >
      <Browser folder={folder} sites={sites} selected={selected} onSelect={select} rows={10} />
      <p className="dcde-Picker-choice" aria-live="polite" data-testid="dcde-picker-choice">
        {found ? `${choice} (${found.note})` : hint(field)}
      </p>
    </Dialog>
  );
}

function hint(field: IField): string {
  return field.kind === 'files' ? 'Open the folder with the files, or select one file.' : 'Select one file.';
}

/** What the choice comes to: the file that is selected, or for several files all of the kind that the folder holds most of. */
export function choiceOf(
  field: IField,
  entry: IEntry | undefined,
  entries: readonly IEntry[]
): { name: string; note: string } | null {
  if (entry && entry.type !== 'folder') {
    return { name: entry.name, note: size(entry.size) };
  }
  if (field.kind !== 'files') {
    return null;
  }
  const kinds = MOVIES.map(ending => ({ ending, files: entries.filter(item => item.type === 'file' && item.name.endsWith(ending)) }));
  const best = kinds.reduce((a, b) => (b.files.length > a.files.length ? b : a));
  if (best.files.length === 0) {
    return null;
  }
  const bytes = best.files.reduce((sum, item) => sum + item.size, 0);
  return { name: `*${best.ending}`, note: `${best.files.length} ${best.files.length === 1 ? 'file' : 'files'}, ${size(bytes)}` };
}
