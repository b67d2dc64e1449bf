import { UUID } from '@lumino/coreutils';
import * as React from 'react';
import { asProblem } from '../api';
import { Form } from '../form/form';
import { Picker } from '../form/picker';
import { Places, siteTrouble, suggested } from '../form/places';
import { fieldsOf, IField, initialValues, parameters, trouble } from '../form/schema';
import { IProblem, ISite, ITemplate } from '../types';
import { useId, useModel } from './hooks';
import { Button, Notice, sentence } from './pieces';

interface ILaunch {
  template: ITemplate;
  sites: readonly ISite[];
}

/** The form of a template and the button that launches it. What was filled in stays when the server refuses it. */
export function Launch({ template, sites }: ILaunch): JSX.Element {
  const model = useModel();
  const id = useId('launch');
  const form = React.useRef<HTMLFormElement>(null);
  const fields = React.useMemo(() => fieldsOf(template.schema), [template]);
  const [typed, setTyped] = React.useState(() => initialValues(fields));
  const [places, setPlaces] = React.useState(() => suggested(template, sites));
  const [allocation, setAllocation] = React.useState('');
  const [project, setProject] = React.useState('');
  const [refused, setRefused] = React.useState<Record<string, string>>({});
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [strict, setStrict] = React.useState(false);
  const [busy, setBusy] = React.useState(false);
  const [picking, pick] = React.useState<IField | null>(null);
  // One token for one launch: when the answer is lost, trying again finds the same run instead of starting another.
  const token = React.useRef(UUID.uuid4());

  const refuse = (error: unknown) => {
    const found = asProblem(error);
    const at = placeOf(found.where, [...fields.map(field => field.name), ...template.steps.map(step => step.id)]);
    setRefused(at ? { [at]: [found.message, found.remedy].filter(Boolean).map(text => sentence(text)).join(' ') } : {});
    setProblem(at ? null : found);
    window.setTimeout(() => form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus());
  };
  const launch = async (event: React.FormEvent) => {
    event.preventDefault();
    setStrict(true);
    setProblem(null);
    if (fields.some(field => trouble(field, typed[field.name]))) {
      window.setTimeout(() => form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus());
      return;
    }
    setBusy(true);
    try {
      const run = await model.launch({
        template: template.name,
        parameters: parameters(fields, typed),
        sites: places,
        token: token.current,
        ...(allocation && { allocation }),
        ...(project.trim() && { project: project.trim() })
      });
      token.current = UUID.uuid4();
      model.show({ tab: 'runs', run: run.id, template: null });
    } catch (error) {
      refuse(error);
    } finally {
      setBusy(false);
    }
  };
  const without = (name: string) => setRefused(Object.fromEntries(Object.entries(refused).filter(([key]) => key !== name)));
  const allocations = allocationsOf(sites);
  return (
    <form ref={form} className="dcde-Form" onSubmit={event => void launch(event)} noValidate data-testid="dcde-form" data-template={template.name}>
      <h3>{template.title}</h3>
      {template.description && <p className="dcde-quiet">{template.description}</p>}
      <Form
        fields={fields}
        typed={typed}
        refused={refused}
        strict={strict}
        onChange={(name, value) => {
          setTyped(old => ({ ...old, [name]: value }));
          without(name);
        }}
        onBrowse={pick}
      />
      <Places
        template={template}
        sites={sites}
        chosen={places}
        refused={refused}
        onChange={(step, site) => {
          setPlaces({ ...places, [step]: site });
          without(step);
        }}
      />
      <fieldset className="dcde-Group">
        <legend>Accounting</legend>
        {allocations.length > 0 && (
          <div className="dcde-Field-line">
            <label htmlFor={`${id}-allocation`}>Allocation</label>
            <select
              id={`${id}-allocation`}
              className="jp-mod-styled"
              value={allocation}
              data-testid="dcde-allocation"
              onChange={event => setAllocation(event.target.value)}
            >
              <option value="">the usual one of each site</option>
              {allocations.map(name => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </div>
        )}
        <div className="dcde-Field-line">
          <label htmlFor={`${id}-project`}>Project</label>
          <input
            id={`${id}-project`}
            className="jp-mod-styled"
            value={project}
            placeholder="a new one"
            autoComplete="off"
            data-testid="dcde-project"
            onChange={event => setProject(event.target.value)}
          />
        </div>
      </fieldset>
      {problem && <Notice problem={problem} />}
      <div className="dcde-Form-launch">
        <Button kind="primary" type="submit" testid="dcde-launch" disabled={busy}>
          {busy ? 'Launching …' : 'Launch'}
        </Button>
      </div>
      {picking && (
        <Picker
          field={picking}
          value={String(typed[picking.name])}
          sites={sites}
          onPick={value => {
            setTyped({ ...typed, [picking.name]: value });
            without(picking.name);
          }}
          onClose={() => pick(null)}
        />
      )}
    </form>
  );
}

/** The field or step that an error speaks of, such as `pixel_size` or `parameters.pixel_size`. */
export function placeOf(where: string, names: readonly string[]): string | null {
  const words = where.split(/[^A-Za-z0-9_-]+/);
  return names.find(name => name === where) ?? names.find(name => words.includes(name)) ?? null;
}

/** The allocations of all sites that can run steps, each once. */
function allocationsOf(sites: readonly ISite[]): string[] {
  const usable = sites.filter(site => !siteTrouble(site));
  return [...new Set(usable.flatMap(site => site.allocations.map(item => item.name)))];
}
