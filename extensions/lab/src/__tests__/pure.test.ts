/** Formats, form schema, graph layout and folders: what needs no screen. */

import { describe, expect, it } from 'vitest';
import { crumbs, FolderModel, nameTrouble } from '../folder';
import { ago, duration, figure, percent, rate, size } from '../format';
import { choiceOf } from '../form/picker';
import { siteTrouble, suggested } from '../form/places';
import { fieldsOf, groupsOf, initialValues, parameters, rangeOf, trouble } from '../form/schema';
import { layout } from '../graph';
import { mergeRun, newestFirst } from '../merge';
import { placeOf } from '../panel/launch';
import { file, refusal, run, ScriptedApi, site, TEMPLATE } from './script';

describe('formats', () => {
  it('gives sizes and rates in powers of 1000, with units', () => {
    expect([0, 999, 1000, 33554432, 999600, 2e12].map(size)).toEqual(['0 B', '999 B', '1.00 kB', '33.6 MB', '1.00 MB', '2.00 TB']);
    expect(size(null)).toBe('');
    expect(rate(8388608)).toBe('8.39 MB/s');
  });

  it('gives spans of time with two units at most', () => {
    expect([0.4, 59, 60, 200, 7500, 273600].map(duration)).toEqual(['0 s', '59 s', '1 min', '3 min 20 s', '2 h 5 min', '3 d 4 h']);
    expect(ago(1000, 1012)).toBe('12 s ago');
    expect(percent(0.456)).toBe('46 %');
    expect([figure(3.14159), figure(612), figure(null), figure('C1')]).toEqual(['3.142', '612', '–', 'C1']);
  });
});

describe('form', () => {
  const fields = fieldsOf(TEMPLATE.schema);
  const named = (name: string) => fields.find(field => field.name === name)!;

  it('orders and groups fields and knows their kinds', () => {
    expect(fields.map(field => [field.name, field.kind])).toEqual([
      ['movies', 'files'],
      ['pixel_size', 'number'],
      ['classes', 'integer'],
      ['ctf', 'boolean'],
      ['symmetry', 'choice']
    ]);
    expect(groupsOf(fields).map(group => group.title)).toEqual(['Data', 'Microscope', 'General']);
    expect(rangeOf(named('pixel_size'))).toBe('0.1 to 20 Å');
    expect(rangeOf(named('classes'))).toBe('at least 1');
  });

  it('says what is wrong with a value', () => {
    expect(trouble(named('pixel_size'), '')).toBe('This is needed.');
    expect(trouble(named('pixel_size'), 'wide')).toBe('Give a number.');
    expect(trouble(named('pixel_size'), '99')).toBe('Must be 0.1 to 20 Å.');
    expect(trouble(named('pixel_size'), '3,54')).toBe('');
    expect(trouble(named('classes'), '2.5')).toBe('Give a whole number.');
    expect(trouble(named('classes'), '')).toBe('');
    expect(trouble(named('movies'), '/etc/passwd')).not.toBe('');
    expect(trouble(named('movies'), 'bnl-sdcc:movies/*.mrcs')).toBe('');
  });

  it('gives parameters in the types of the schema, and tells of a default that was taken away', () => {
    const filled = { movies: 'bnl-sdcc:m/*.mrcs', classes: 8, ctf: true, symmetry: 'C1' };
    expect(parameters(fields, initialValues(fields))).toEqual(filled);
    const typed = { ...initialValues(fields), pixel_size: ' 3.54 ', classes: '' };
    expect(parameters(fields, typed)).toEqual({ ...filled, pixel_size: 3.54, classes: '' });
  });

  it('finds the field that an error of the server speaks of', () => {
    expect(placeOf('pixel_size', ['movies', 'pixel_size'])).toBe('pixel_size');
    expect(placeOf('parameters.pixel_size', ['pixel', 'pixel_size'])).toBe('pixel_size');
    expect(placeOf('bnl-sdcc', ['movies'])).toBeNull();
  });

  it('suggests sites that can run the steps, and auto elsewhere', () => {
    const closed = site('ornl-cades', 'ORNL', {
      capabilities: [{ action: 'submit', title: 'run jobs', allowed: false, reason: 'No group.', remedy: '' }]
    });
    expect(suggested(TEMPLATE, [site('bnl-sdcc', 'BNL'), closed])).toEqual({ import: 'bnl-sdcc', ctf: 'auto' });
    expect(siteTrouble(closed)).toBe('No group.');
    expect(siteTrouble(site('x', 'X', { applications: { other: '1' } }))).toBe('It has no relion.');
  });

  it('makes a pattern of the kind of file that a folder holds most of', () => {
    const entries = [file('a.mrcs', 10), file('b.mrcs', 20), file('gain.mrc'), file('x.txt')];
    expect(choiceOf(named('movies'), undefined, entries)).toEqual({ name: '*.mrcs', note: '2 files, 30 B' });
    expect(choiceOf(named('movies'), entries[2], entries)?.name).toBe('gain.mrc');
    expect(choiceOf({ ...named('movies'), kind: 'file' }, undefined, entries)).toBeNull();
    expect(choiceOf(named('movies'), undefined, [])).toBeNull();
  });
});

describe('graph', () => {
  const measures = { width: 100, height: 40, gapX: 10, gapY: 20 };
  const row = (nodes: { id: string; after: string[] }[]) =>
    Object.fromEntries(layout(nodes, measures).nodes.map(node => [node.id, node.layer]));

  it('puts each step below all that it comes after', () => {
    const diamond = [
      { id: 'd', after: ['b', 'c'] },
      { id: 'a', after: [] },
      { id: 'b', after: ['a'] },
      { id: 'c', after: ['a'] }
    ];
    expect(row(diamond)).toEqual({ a: 0, b: 1, c: 1, d: 2 });
    const placed = layout(diamond, measures);
    expect(placed.edges).toHaveLength(4);
    expect([placed.width, placed.height]).toEqual([210, 160]);
    const places = placed.nodes.map(node => `${node.x},${node.y}`);
    expect(new Set(places).size).toBe(4);
  });

  it('survives cycles, unknown predecessors and nothing at all', () => {
    expect(row([{ id: 'a', after: ['b'] }, { id: 'b', after: ['a'] }, { id: 'c', after: [] }])).toEqual({ c: 0, a: 1, b: 1 });
    expect(row([{ id: 'a', after: ['ghost'] }])).toEqual({ a: 0 });
    expect(layout([], measures).nodes).toEqual([]);
  });

  it('leads a line that passes a layer around the nodes in between', () => {
    const chain = [
      { id: 'a', after: [] },
      { id: 'b', after: ['a'] },
      { id: 'c', after: ['a', 'b'] }
    ];
    const long = layout(chain, measures).edges.find(edge => edge.from === 'a' && edge.to === 'c');
    expect(long?.path).toMatch(/^M100,20 C1\d\d/);
  });
});

describe('runs', () => {
  it('keeps known steps when a run comes without them, newest first', () => {
    const known = run('r1');
    expect(mergeRun(known, { ...known, state: 'succeeded', steps: [] }).steps).toHaveLength(3);
    expect(newestFirst([run('r1'), run('r3'), run('r2')]).map(item => item.id)).toEqual(['r3', 'r2', 'r1']);
  });
});

describe('folders', () => {
  it('splits paths and judges names', () => {
    expect(crumbs('a/b')).toEqual([
      ['a', 'a'],
      ['b', 'a/b']
    ]);
    expect(nameTrouble('fine')).toBe('');
    for (const bad of ['', ' ', 'a/b', '..', 'x'.repeat(201)]) {
      expect(nameTrouble(bad)).not.toBe('');
    }
  });

  it('drops answers that were overtaken, and keeps the last content when a folder cannot be read again', async () => {
    const api = new ScriptedApi();
    const waiting: ((value: unknown) => void)[] = [];
    api.answers['files.list'] = () => new Promise(resolve => waiting.push(resolve));
    const folder = new FolderModel(api);
    const first = folder.open('bnl-sdcc', 'slow');
    const second = folder.open('bnl-sdcc', 'quick');
    waiting[1]({ entries: [file('frame_10'), file('frame_9'), { ...file('sub'), type: 'folder' }], truncated: false });
    waiting[0]({ entries: [file('old')], truncated: false });
    await Promise.all([first, second]);
    expect(folder.path).toBe('quick');
    expect(folder.entries.map(entry => entry.name)).toEqual(['sub', 'frame_9', 'frame_10']);

    api.answers['files.list'] = refusal('LinkLost', 'the site is away', '', 503);
    await folder.refresh();
    expect(folder.problem?.code).toBe('LinkLost');
    expect(folder.entries).toHaveLength(3);
  });
});
