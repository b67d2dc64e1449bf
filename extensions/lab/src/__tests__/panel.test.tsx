/** The panel as a person meets it: by labels, roles and keys. */

import { act, fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import * as React from 'react';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Model } from '../model';
import { Panel } from '../panel/panel';
import { IEntry } from '../types';
import { file, refusal, run, ScriptedApi, site, step } from './script';

let api: ScriptedApi;
let model: Model;
const user = userEvent.setup();

beforeEach(() => {
  api = new ScriptedApi();
  model = new Model(api);
});

afterEach(() => model.dispose());

async function show(): Promise<void> {
  render(<Panel model={model} />);
  model.start();
  await waitFor(() => expect(['up', 'unconnected']).toContain(model.connection));
  await settle();
}

/** Let the model's next frame pass. */
async function settle(): Promise<void> {
  await act(() => new Promise(resolve => window.setTimeout(resolve, 40)));
}

const tab = (name: string) => screen.getByRole('tab', { name: new RegExp(name) });

describe('tabs', () => {
  it('are one tab stop, go with the arrow keys, and name their panels', async () => {
    await show();
    expect(screen.getAllByRole('tab').map(item => item.tabIndex)).toEqual([0, -1, -1, -1]);
    tab('Runs').focus();
    await user.keyboard('{ArrowRight}');
    await settle();
    expect(document.activeElement).toBe(tab('Templates'));
    expect(tab('Templates').getAttribute('aria-selected')).toBe('true');
    await user.keyboard('{End}');
    await settle();
    expect(document.activeElement).toBe(tab('Data'));
    expect(screen.getByRole('tabpanel', { name: 'Data' })).toBeTruthy();
  });

  it('say politely when the server is part of no hub', async () => {
    api.connected = false;
    await show();
    expect(screen.getByTestId('dcde-unconnected').textContent).toContain('not part of a DCDE hub');
    expect(screen.queryByRole('tab')).toBeNull();
  });
});

describe('runs', () => {
  const picks = { name: 'picks', title: 'Picks' };

  beforeEach(() => {
    const steps = [
      step('import', [], { state: 'succeeded', started: 100, ended: 130, job_id: '7', pictures: [picks] }),
      step('ctf', ['import'], { state: 'queued', why: 'One job is before it.', queued_at: 140, job_id: '8' }),
      step('classes', ['ctf'])
    ];
    api.answers['runs.list'] = [run('r1', { steps })];
    api.answers['runs.show'] = run('r1', { steps });
    api.answers['runs.log'] = { text: '<b>line</b>\n', offset: 12 };
  });

  it('show each step with its state in words, why it waits, and its log as text', async () => {
    await show();
    await user.click(screen.getByTestId('dcde-run'));
    await settle();
    expect(screen.getByRole('button', { name: 'Step ctf: in the queue, BNL SDCC' })).toBeTruthy();
    expect(screen.getByTestId('dcde-step-why').textContent).toBe('One job is before it.');

    const first = screen.getByRole('button', { name: /Step import/ });
    first.focus();
    await user.keyboard('{Enter}');
    expect(screen.getByTestId('dcde-step-open').dataset.step).toBe('import');
    const fold = screen.getByTestId('dcde-log-toggle').closest('details') as HTMLDetailsElement;
    fold.open = true;
    fireEvent(fold, new Event('toggle'));
    await waitFor(() => expect(screen.getByTestId('dcde-log').textContent).toContain('<b>line</b>'));
    expect(document.querySelector('.dcde-Log b')).toBeNull();
  });

  it('go on with events and are announced', async () => {
    await show();
    await user.click(screen.getByTestId('dcde-run'));
    await settle();
    api.sockets[0].say({ type: 'step', run: 'r1', ...step('ctf', ['import'], { state: 'running', fraction: 0.5 }) });
    await settle();
    expect(screen.getByRole('button', { name: /Step ctf: running/ })).toBeTruthy();
    expect(screen.getByTestId('dcde-announcer').textContent).toBe('First look, Step ctf: running at BNL SDCC.');
  });

  it('enlarge a picture by key and go back with Escape', async () => {
    await show();
    await user.click(screen.getByTestId('dcde-run'));
    await settle();
    screen.getByTestId('dcde-picture').focus();
    await user.keyboard('{Enter}');
    const dialog = screen.getByTestId('dcde-picture-large');
    expect(within(dialog).getByRole('img').getAttribute('src')).toBe('/picture?run=r1&step=import&name=picks&attempt=1&as=succeeded');
    within(dialog).getByRole('button', { name: 'Close' }).focus();
    await user.keyboard('{Escape}');
    expect(screen.queryByTestId('dcde-picture-large')).toBeNull();
  });

  it('are cancelled only after a question', async () => {
    api.answers['runs.cancel'] = run('r1', { state: 'cancelled' });
    await show();
    await user.click(screen.getByTestId('dcde-run'));
    await settle();
    await user.click(screen.getByTestId('dcde-run-cancel'));
    expect(api.called('runs.cancel')).toEqual([]);
    await user.click(screen.getByTestId('dcde-confirm-yes'));
    await settle();
    expect(api.called('runs.cancel')).toEqual([{ run: 'r1' }]);
    expect(screen.getByTestId('dcde-run-open').dataset.state).toBe('cancelled');
    expect(screen.getByTestId('dcde-run-resume')).toBeTruthy();
  });
});

describe('templates', () => {
  async function openForm(): Promise<void> {
    await show();
    await user.click(tab('Templates'));
    await user.click(await screen.findByTestId('dcde-template'));
    await screen.findByTestId('dcde-form');
  }

  it('have a label, a range and a description for each field', async () => {
    await openForm();
    const input = screen.getByLabelText<HTMLInputElement>(/^Pixel size/);
    expect([input.type, input.min, input.max, input.required]).toEqual(['number', '0.1', '20', true]);
    expect(screen.getByLabelText<HTMLSelectElement>('Symmetry').value).toBe('C1');
    expect(screen.getByLabelText<HTMLInputElement>('Correct').checked).toBe(true);
  });

  it('are not launched with a wrong value, which is named at its field', async () => {
    await openForm();
    await user.type(screen.getByLabelText(/^Pixel size/), '99');
    await user.click(screen.getByTestId('dcde-launch'));
    expect(screen.getByTestId('dcde-trouble-pixel_size').textContent).toBe('Must be 0.1 to 20 Å.');
    await waitFor(() => expect(document.activeElement).toBe(screen.getByLabelText(/^Pixel size/)));
    expect(api.called('runs.launch')).toEqual([]);
  });

  it('show what the server refuses at the field, keep what was typed, and repeat with the same token', async () => {
    api.answers['runs.launch'] = refusal('InvalidParameter', 'pixel_size is odd', 'pixel_size');
    await openForm();
    await user.type(screen.getByLabelText(/^Pixel size/), '3.5');
    await user.selectOptions(screen.getByLabelText('Import'), 'auto');
    await user.click(screen.getByTestId('dcde-launch'));
    expect((await screen.findByTestId('dcde-trouble-pixel_size')).textContent).toBe('Pixel_size is odd. Do better.');
    expect(screen.getByLabelText<HTMLInputElement>(/^Pixel size/).value).toBe('3.5');

    api.answers['runs.launch'] = run('r5');
    api.answers['runs.show'] = run('r5');
    await user.click(screen.getByTestId('dcde-launch'));
    await screen.findByTestId('dcde-run-open');
    const [first, second] = api.called('runs.launch');
    expect(first.token).toBe(second.token);
    expect(second).toMatchObject({
      template: 'first-look',
      parameters: { movies: 'bnl-sdcc:m/*.mrcs', pixel_size: 3.5, classes: 8, ctf: true, symmetry: 'C1' },
      sites: { import: 'auto', ctf: 'ornl-cades' }
    });
  });

  it('offer a site that may not be used only with the reason', async () => {
    const barred = site('ornl-cades', 'ORNL CADES', {
      capabilities: [{ action: 'submit', title: 'run jobs', allowed: false, reason: 'You lack the group x.', remedy: '' }]
    });
    api.answers['sites.list'] = [site('bnl-sdcc', 'BNL SDCC'), barred];
    await openForm();
    const options = within(screen.getByTestId('dcde-step-site-ctf')).getAllByRole<HTMLOptionElement>('option');
    const option = options.find(item => item.value === 'ornl-cades')!;
    expect([option.disabled, option.textContent]).toEqual([true, 'ORNL CADES – You lack the group x.']);
    expect(screen.getByTestId<HTMLSelectElement>('dcde-step-site-ctf').value).toBe('auto');
  });

  it('take files by browsing', async () => {
    api.answers['files.list'] = { entries: [file('a.tiff'), file('b.tiff')], truncated: false };
    await openForm();
    await user.click(screen.getByTestId('dcde-browse-movies'));
    const picker = await screen.findByTestId('dcde-picker');
    await waitFor(() => expect(within(picker).getByTestId('dcde-picker-choice').textContent).toContain('2 files'));
    await user.click(screen.getByTestId('dcde-picker-use'));
    expect(screen.getByLabelText<HTMLInputElement>(/^Movies/).value).toBe('bnl-sdcc:m/*.tiff');
  });
});

describe('sites', () => {
  it('tell state, queue, storage, and what one may not do and why', async () => {
    api.answers['sites.list'] = [
      site('bnl-sdcc', 'BNL SDCC'),
      site('anl', 'ANL', {
        state: 'refused',
        reason: 'You lack the policy.',
        remedy: 'Accept it at example.',
        queue: null,
        capabilities: [{ action: 'submit', title: 'run jobs', allowed: false, reason: 'A group.', remedy: 'Ask.' }]
      })
    ];
    await show();
    await user.click(tab('Sites'));
    await settle();
    const [bnl, anl] = screen.getAllByTestId('dcde-site');
    expect(bnl.textContent).toContain('connected');
    expect(bnl.textContent).toContain('1 of 2 idle, 1 down');
    expect(bnl.textContent).toContain('1.20 TB free of 2.00 TB');
    expect(bnl.textContent).toContain('You may run jobs and read files.');
    expect(anl.textContent).toContain('You lack the policy. Accept it at example.');
    expect(anl.textContent).toContain('You may not run jobs. A group. Ask.');
  });
});

describe('data', () => {
  const NASTY = '<img src=x onerror="window.broken=1">';

  async function openData(entries: IEntry[]): Promise<void> {
    api.answers['files.list'] = { entries, truncated: false };
    await show();
    await user.click(tab('Data'));
    await settle();
  }

  it('shows names as text, whatever they are', async () => {
    await openData([file(NASTY)]);
    expect(screen.getByTestId('dcde-entry').dataset.name).toBe(NASTY);
    expect(screen.getByText(NASTY)).toBeTruthy();
    expect(document.querySelector('.dcde-Entries img')).toBeNull();
    expect('broken' in window).toBe(false);
  });

  it('keeps only what is in view of thousands of entries in the document', async () => {
    await openData(Array.from({ length: 2500 }, (_, n) => file(`frame_${n}.tiff`)));
    expect(screen.getAllByTestId('dcde-entry').length).toBeLessThan(60);
    const list = screen.getByTestId('dcde-entries');
    expect(list.dataset.count).toBe('2500');
    fireEvent.scroll(list, { target: { scrollTop: 24 * 2000 } });
    expect(screen.getByText('frame_2000.tiff')).toBeTruthy();
  });

  it('says that a folder is empty', async () => {
    await openData([]);
    expect(screen.getByTestId('dcde-browser-empty').textContent).toBe('This folder is empty.');
  });

  it('goes into folders and selects by keys', async () => {
    await openData([{ ...file('sub'), type: 'folder' }, file('a'), file('b')]);
    screen.getByTestId('dcde-entries').focus();
    await user.keyboard('{ArrowDown}{ArrowDown}');
    expect(screen.getByTestId('dcde-selected').textContent).toBe('Selected: a');
    await user.keyboard('{Home}{Enter}');
    await settle();
    expect(screen.getByTestId('dcde-browser').dataset.path).toBe('sub');
  });

  it('makes a folder, and says at the name what is wrong with it', async () => {
    await openData([]);
    await user.click(screen.getByTestId('dcde-new-folder'));
    await user.type(screen.getByLabelText('Name'), 'a/b');
    await user.click(screen.getByTestId('dcde-new-folder-make'));
    expect(screen.getByTestId('dcde-new-folder-dialog').textContent).toContain('no /');
    await user.clear(screen.getByLabelText('Name'));
    await user.type(screen.getByLabelText('Name'), 'new{Enter}');
    await settle();
    expect(api.called('files.mkdir')).toEqual([{ site: 'bnl-sdcc', path: 'new' }]);
    expect(screen.queryByTestId('dcde-new-folder-dialog')).toBeNull();
  });

  it('copies to another site, shows how far it is, and cancels', async () => {
    const transfer = { id: 't1', source: 'bnl-sdcc:a', target: 'ornl-cades:', state: 'moving', bytes_done: 5e6, bytes_total: 1e7, rate: 1e6, started: 5 };
    api.answers['files.copy'] = transfer;
    api.answers['transfers.cancel'] = {};
    await openData([file('a')]);
    await user.click(screen.getByTestId('dcde-entry'));
    await user.click(screen.getByTestId('dcde-copy'));
    await settle();
    await user.click(screen.getByTestId('dcde-copy-start'));
    await settle();
    expect(api.called('files.copy')).toEqual([{ source: 'bnl-sdcc:a', target: 'ornl-cades:' }]);
    const row = screen.getByTestId('dcde-transfer');
    expect(row.textContent).toContain('5.00 MB of 10.0 MB · 1.00 MB/s · 5 s left');
    expect(within(row).getByRole('progressbar').getAttribute('aria-valuenow')).toBe('50');
    await user.click(screen.getByTestId('dcde-transfer-cancel'));
    expect(api.called('transfers.cancel')).toEqual([{ id: 't1' }]);
  });
});
