import * as React from 'react';
import { asProblem } from '../api';
import { IProblem, ITemplate } from '../types';
import { useModel } from './hooks';
import { Launch } from './launch';
import { Button, Hint, Notice } from './pieces';

/** The list of templates, or the form of the one that was chosen. */
export function TemplatesView(): JSX.Element {
  const model = useModel();
  const open = model.view.template;
  if (open !== null) {
    return <OpenTemplate key={open} name={open} />;
  }
  if (model.templates === null) {
    return <Hint>The templates are being read …</Hint>;
  }
  if (model.templates.length === 0) {
    return <Hint>There is no template.</Hint>;
  }
  return (
    <ul className="dcde-List" aria-label="Templates" data-testid="dcde-templates">
      {model.templates.map(template => (
        <li key={template.name}>
          <button
            type="button"
            className="dcde-Row"
            data-testid="dcde-template"
            data-template={template.name}
            onClick={() => model.show({ template: template.name })}
          >
            <span className="dcde-Row-head">
              <strong>{template.title}</strong>
              <span className="dcde-quiet">version {template.version}</span>
            </span>
            <span className="dcde-Row-line dcde-mod-wrap">{template.description}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

function OpenTemplate({ name }: { name: string }): JSX.Element {
  const model = useModel();
  const [template, setTemplate] = React.useState<ITemplate | null>(null);
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [turn, setTurn] = React.useState(0);
  const up = model.connection === 'up';
  React.useEffect(() => {
    if (template || !up) {
      return;
    }
    let ended = false;
    model.api.call<ITemplate>('templates.show', { name }).then(
      found => !ended && setTemplate(found),
      error => !ended && setProblem(asProblem(error))
    );
    return () => {
      ended = true;
    };
  }, [name, turn, up]);
  return (
    <div>
      <Button kind="quiet" className="dcde-Back" testid="dcde-template-back" onClick={() => model.show({ template: null })}>
        ‹ All templates
      </Button>
      {template && model.sites ? (
        <Launch template={template} sites={model.sites} />
      ) : problem ? (
        <Notice
          problem={problem}
          onRetry={() => {
            setProblem(null);
            setTurn(turn + 1);
          }}
        />
      ) : (
        <Hint>The form is being read …</Hint>
      )}
    </div>
  );
}
