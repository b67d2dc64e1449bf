import * as React from 'react';
import { useId } from '../panel/hooks';
import { Button } from '../panel/pieces';
import { IField, rangeOf } from './schema';

interface IFieldView {
  field: IField;
  value: string | boolean;
  trouble: string;
  onChange: (value: string | boolean) => void;
  onBrowse: () => void;
}

/** One field: its label, its input with the unit, what it is for, and what is wrong with it. */
export function FieldView({ field, value, trouble, onChange, onBrowse }: IFieldView): JSX.Element {
  const id = useId('field');
  const help = [field.help, rangeOf(field) && `From ${rangeOf(field)}.`.replace('From at', 'At')].filter(Boolean).join(' ');
  const described = [help && `${id}-help`, trouble && `${id}-trouble`].filter(Boolean).join(' ') || undefined;
  const common = {
    id,
    'aria-describedby': described,
    'aria-invalid': trouble !== '',
    'data-testid': `dcde-field-${field.name}`
  };
  return (
    <div className={`dcde-Field dcde-mod-${field.kind}`} data-field={field.name}>
      {field.kind === 'boolean' ? (
        <label htmlFor={id} className="dcde-Field-check">
          <input {...common} type="checkbox" checked={value === true} onChange={event => onChange(event.target.checked)} />
          {field.title}
        </label>
      ) : (
        <>
          <label htmlFor={id}>
            {field.title}
            {field.unit && <span className="dcde-quiet"> ({field.unit})</span>}
            {field.required && <span className="dcde-Field-needed"> (needed)</span>}
          </label>
          <div className="dcde-Field-input">
            <Input field={field} value={String(value)} onChange={onChange} common={common} />
            {(field.kind === 'file' || field.kind === 'files') && (
              <Button onClick={onBrowse} testid={`dcde-browse-${field.name}`} aria-label={`Browse for ${field.title}`}>
                Browse …
              </Button>
            )}
          </div>
        </>
      )}
      {help && (
        <p id={`${id}-help`} className="dcde-Field-help">
          {help}
        </p>
      )}
      {trouble && (
        <p id={`${id}-trouble`} className="dcde-Field-trouble" role="alert" data-testid={`dcde-trouble-${field.name}`}>
          {trouble}
        </p>
      )}
    </div>
  );
}

interface IInput {
  field: IField;
  value: string;
  onChange: (value: string) => void;
  common: React.HTMLAttributes<HTMLElement> & { id: string };
}

function Input({ field, value, onChange, common }: IInput): JSX.Element {
  if (field.kind === 'choice') {
    return (
      <select {...common} className="jp-mod-styled" value={value} required={field.required} onChange={event => onChange(event.target.value)}>
        {!field.required && <option value="" />}
        {field.choices.map(choice => (
          <option key={choice} value={choice}>
            {choice}
          </option>
        ))}
      </select>
    );
  }
  const number = field.kind === 'number' || field.kind === 'integer';
  return (
    <input
      {...common}
      className="jp-mod-styled"
      type={number ? 'number' : 'text'}
      step={field.kind === 'integer' ? 1 : 'any'}
      min={field.minimum ?? undefined}
      max={field.maximum ?? undefined}
      required={field.required}
      value={value}
      spellCheck={false}
      autoComplete="off"
      onChange={event => onChange(event.target.value)}
    />
  );
}
