import * as React from 'react';
import { ago, size } from '../format';
import { ISite } from '../types';
import { useModel, useNow } from './hooks';
import { Button, Fact, Hint, StateIcon, StateMark } from './pieces';

export function SitesView(): JSX.Element {
  const model = useModel();
  if (model.sites === null) {
    return <Hint>Your sites are being read …</Hint>;
  }
  if (model.sites.length === 0) {
    return <Hint>You have no site yet. Ask your hub's operators which groups give access to one.</Hint>;
  }
  return (
    <ul className="dcde-List" aria-label="Sites" data-testid="dcde-sites">
      {model.sites.map(site => (
        <li key={site.name}>
          <SiteCard site={site} onBrowse={() => model.show({ tab: 'data', place: `${site.name}:` })} />
        </li>
      ))}
    </ul>
  );
}

function SiteCard({ site, onBrowse }: { site: ISite; onBrowse: () => void }): JSX.Element {
  const now = useNow(site.state !== 'up');
  return (
    <article className="dcde-Card" aria-label={site.title} data-testid="dcde-site" data-site={site.name} data-state={site.state}>
      <div className="dcde-Row-head">
        <h4>{site.title}</h4>
        <StateMark state={site.state} />
      </div>
      {site.description && <p className="dcde-quiet">{site.description}</p>}
      {site.state !== 'up' && (site.reason || site.since) && (
        <p className="dcde-Card-trouble">
          {site.reason || (site.since ? `Since ${ago(site.since, now)}.` : '')}
          {site.remedy && <span className="dcde-remedy"> {site.remedy}</span>}
        </p>
      )}
      <dl className="dcde-Facts">
        <Fact name="My account">{site.account}</Fact>
        <Fact name="Login host">{site.login_host}</Fact>
        <Fact name="Queue">{site.queue && queueOf(site.queue)}</Fact>
        <Fact name="Nodes">{site.queue && nodesOf(site.queue)}</Fact>
        <Fact name="Storage">{site.free && <Storage {...site.free} />}</Fact>
        <Fact name="Allocations">{site.allocations.map(allocationOf).join(', ')}</Fact>
        <Fact name="Software">
          {Object.entries(site.applications ?? {})
            .map(([name, version]) => `${name} ${version}`)
            .join(', ')}
        </Fact>
      </dl>
      <Capabilities site={site} />
      {site.state === 'up' && (
        <div className="dcde-Actions">
          <Button onClick={onBrowse} testid="dcde-site-browse">
            Browse files
          </Button>
        </div>
      )}
    </article>
  );
}

function Capabilities({ site }: { site: ISite }): JSX.Element | null {
  if (site.capabilities.length === 0) {
    return null;
  }
  const allowed = site.capabilities.filter(item => item.allowed);
  return (
    <ul className="dcde-Capabilities" aria-label={`What you may do at ${site.title}`}>
      {allowed.length > 0 && (
        <li data-allowed="true">
          <StateIcon state="done" />
          <span>You may {inWords(allowed.map(item => item.title))}.</span>
        </li>
      )}
      {site.capabilities
        .filter(item => !item.allowed)
        .map(item => (
          <li key={item.action} data-action={item.action} data-allowed="false">
            <StateIcon state="failed" />
            <span>
              You may not {item.title}.
              {item.reason && item.reason !== site.reason && <span className="dcde-quiet"> {item.reason}</span>}
              {item.remedy && item.remedy !== site.remedy && <span className="dcde-remedy"> {item.remedy}</span>}
            </span>
          </li>
        ))}
    </ul>
  );
}

function Storage({ total, available }: { total: number; available: number }): JSX.Element {
  const share = total > 0 ? available / total : 0;
  return (
    <span className={share < 0.05 ? 'dcde-low' : undefined}>
      {size(available)} free of {size(total)}
    </span>
  );
}

function queueOf(queue: NonNullable<ISite['queue']>): string {
  const mine = queue.mine_running + queue.mine_pending;
  return `${queue.running} running, ${queue.pending} waiting${mine ? ` (mine: ${queue.mine_running} and ${queue.mine_pending})` : ''}`;
}

function nodesOf(queue: NonNullable<ISite['queue']>): string {
  return `${queue.nodes_idle} of ${queue.nodes_total} idle${queue.nodes_down ? `, ${queue.nodes_down} down` : ''}`;
}

function inWords(items: readonly string[]): string {
  const last = items[items.length - 1];
  return items.length > 1 ? `${items.slice(0, -1).join(', ')} and ${last}` : last;
}

function allocationOf(item: { name: string; remaining_hours: number | null }): string {
  return item.remaining_hours === null ? item.name : `${item.name} (${Math.round(item.remaining_hours)} h left)`;
}
