import * as React from 'react';
import { Model, Tab } from '../model';
import { DataView } from './data';
import { ModelContext, useModel } from './hooks';
import { Hint, Notice, Button } from './pieces';
import { RunsView } from './runs';
import { SitesView } from './sites';
import { Tabs } from './tabs';
import { TemplatesView } from './templates';

/** The whole content of the side panel. */
export function Panel({ model }: { model: Model }): JSX.Element {
  return (
    <ModelContext.Provider value={model}>
      <Content />
      <Announcer model={model} />
    </ModelContext.Provider>
  );
}

function Content(): JSX.Element {
  const model = useModel();
  if (model.connection === 'unconnected') {
    return <Unconnected />;
  }
  const live = model.runs?.filter(run => run.state === 'running' || run.state === 'waiting').length ?? 0;
  const tabs: { name: Tab; title: string; count?: number }[] = [
    { name: 'runs', title: 'Runs', count: live },
    { name: 'templates', title: 'Templates' },
    { name: 'sites', title: 'Sites' },
    { name: 'data', title: 'Data' }
  ];
  return (
    <div className="dcde-Content" data-testid="dcde-content" data-connection={model.connection} data-stale={model.stale}>
      {model.connection === 'away' && model.problem && <Away model={model} />}
      <Tabs label="DCDE" tabs={tabs} selected={model.view.tab} onSelect={tab => model.show({ tab })}>
        <RunsView />
        <TemplatesView />
        <SitesView />
        <DataView />
      </Tabs>
    </div>
  );
}

function Away({ model }: { model: Model }): JSX.Element {
  const problem = model.problem!;
  const told = model.stale ? `${problem.remedy} What you see may be out of date.`.trim() : problem.remedy;
  return (
    <div className="dcde-Away" data-testid="dcde-away">
      <Notice problem={{ ...problem, remedy: told }} kind="warning" />
    </div>
  );
}

function Unconnected(): JSX.Element {
  return (
    <div className="dcde-Empty" data-testid="dcde-unconnected">
      <h3>DCDE</h3>
      <p>This Jupyter server is not part of a DCDE hub, so there are no sites here.</p>
      <Hint>Log in at the address of your DCDE hub and start your server there. Everything else in JupyterLab works as usual.</Hint>
    </div>
  );
}

/** Says changes to people who use a screen reader; the newest sentence takes the place of the one before. */
function Announcer({ model }: { model: Model }): JSX.Element {
  const [sentence, say] = React.useState('');
  React.useEffect(() => {
    const slot = (_: Model, text: string) => say(text);
    model.announced.connect(slot);
    return () => {
      model.announced.disconnect(slot);
    };
  }, [model]);
  return (
    <div className="dcde-Announcer" role="status" aria-live="polite" data-testid="dcde-announcer">
      {sentence}
    </div>
  );
}

interface IBoundary {
  failed: boolean;
}

/** Keeps an error of one view from taking the panel away. */
export class Boundary extends React.Component<React.PropsWithChildren<unknown>, IBoundary> {
  state: IBoundary = { failed: false };

  static getDerivedStateFromError(): IBoundary {
    return { failed: true };
  }

  render(): React.ReactNode {
    if (!this.state.failed) {
      return this.props.children;
    }
    return (
      <div className="dcde-Empty" role="alert">
        <p>The panel met an error of its own. Your runs are not affected.</p>
        <Button onClick={() => this.setState({ failed: false })}>Show it again</Button>
      </div>
    );
  }
}
