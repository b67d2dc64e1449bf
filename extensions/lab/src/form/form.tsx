import * as React from 'react';
import { FieldView } from './field';
import { groupsOf, IField, trouble, Typed } from './schema';

interface IForm {
  fields: readonly IField[];
  typed: Typed;
  /** What the server said about fields; it stands there until the field is changed. */
  refused: Record<string, string>;
  /** Whether fields that nobody has touched are judged as well. */
  strict: boolean;
  onChange: (name: string, value: string | boolean) => void;
  onBrowse: (field: IField) => void;
}

/** The form of a template, made from its schema: groups of labelled fields, those for experts folded away. */
export function Form({ fields, typed, refused, strict, onChange, onBrowse }: IForm): JSX.Element {
  const [touched, touch] = React.useState<ReadonlySet<string>>(new Set());
  const show = (field: IField) => {
    const own = strict || touched.has(field.name) ? trouble(field, typed[field.name]) : '';
    return (
      <FieldView
        key={field.name}
        field={field}
        value={typed[field.name]}
        trouble={refused[field.name] || own}
        onChange={value => {
          touch(new Set([...touched, field.name]));
          onChange(field.name, value);
        }}
        onBrowse={() => onBrowse(field)}
      />
    );
  };
  const advanced = fields.filter(field => field.advanced);
  const open = advanced.some(field => refused[field.name] || (strict && trouble(field, typed[field.name])));
  return (
    <>
      {groupsOf(fields.filter(field => !field.advanced)).map(group => (
        <fieldset key={group.title} className="dcde-Group">
          <legend>{group.title}</legend>
          {group.fields.map(show)}
        </fieldset>
      ))}
      {advanced.length > 0 && (
        <details className="dcde-Fold" data-testid="dcde-advanced" open={open || undefined}>
          <summary>More settings</summary>
          {groupsOf(advanced).map(group => (
            <fieldset key={group.title} className="dcde-Group">
              <legend>{group.title}</legend>
              {group.fields.map(show)}
            </fieldset>
          ))}
        </details>
      )}
    </>
  );
}
