import * as React from 'react';
import { ISite, ITemplate } from '../types';
import { useId } from '../panel/hooks';

/** Why a site cannot run a step; empty when it can. */
export function siteTrouble(site: ISite, application = 'relion'): string {
  const submit = site.capabilities.find(item => item.action === 'submit');
  if (submit && !submit.allowed) {
    return submit.reason || 'You may not run jobs there.';
  }
  if (site.state === 'unavailable' || site.state === 'refused') {
    return site.reason || `It is ${site.state}.`;
  }
  const known = Object.keys(site.applications ?? {});
  return known.length && !known.includes(application) ? `It has no ${application}.` : '';
}

interface IPlaces {
  template: ITemplate;
  sites: readonly ISite[];
  chosen: Record<string, string>;
  refused: Record<string, string>;
  onChange: (step: string, site: string) => void;
}

/** Where each step runs: at a site, or wherever it starts soonest. Sites that cannot are shown with the reason. */
export function Places({ template, sites, chosen, refused, onChange }: IPlaces): JSX.Element {
  const id = useId('place');
  const barred = sites.map(site => ({ site, why: siteTrouble(site) })).filter(item => item.why);
  return (
    <fieldset className="dcde-Group dcde-Places">
      <legend>Where the steps run</legend>
      {template.steps.map(step => (
        <div key={step.id} className="dcde-Field-line">
          <label htmlFor={`${id}-${step.id}`}>{step.title}</label>
          <select
            id={`${id}-${step.id}`}
            className="jp-mod-styled"
            value={chosen[step.id]}
            aria-invalid={Boolean(refused[step.id])}
            aria-describedby={barred.length ? `${id}-barred` : undefined}
            data-testid={`dcde-step-site-${step.id}`}
            onChange={event => onChange(step.id, event.target.value)}
          >
            <option value="auto">auto: where it starts soonest</option>
            {sites.map(site => {
              const why = siteTrouble(site);
              return (
                <option key={site.name} value={site.name} disabled={why !== ''}>
                  {site.title}
                  {why ? ` – ${why}` : site.name === step.default_site ? ' (suggested)' : ''}
                </option>
              );
            })}
          </select>
          {refused[step.id] && (
            <p className="dcde-Field-trouble" role="alert">
              {refused[step.id]}
            </p>
          )}
        </div>
      ))}
      {barred.length > 0 && (
        <ul id={`${id}-barred`} className="dcde-Field-help" data-testid="dcde-barred">
          {barred.map(({ site, why }) => (
            <li key={site.name}>
              {site.title}: {why} {site.remedy}
            </li>
          ))}
        </ul>
      )}
    </fieldset>
  );
}

/** The suggested site of each step where it can run it, and `auto` elsewhere. */
export function suggested(template: ITemplate, sites: readonly ISite[]): Record<string, string> {
  return Object.fromEntries(
    template.steps.map(step => {
      const site = sites.find(item => item.name === step.default_site);
      return [step.id, site && !siteTrouble(site) ? site.name : 'auto'];
    })
  );
}
