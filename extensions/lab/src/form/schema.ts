/** The JSON Schema of a template's form, as fields in groups, and the check of what was typed. */

import { IFieldSchema, ISchema } from '../types';

export type Kind = 'number' | 'integer' | 'boolean' | 'choice' | 'text' | 'file' | 'files';

export interface IField {
  name: string;
  title: string;
  kind: Kind;
  help: string;
  unit: string;
  group: string;
  advanced: boolean;
  required: boolean;
  minimum: number | null;
  maximum: number | null;
  choices: string[];
  initial: string | boolean;
}

export interface IGroup {
  title: string;
  fields: IField[];
}

/** What a person typed: texts as they stand in the inputs. */
export type Typed = Record<string, string | boolean>;

export function fieldsOf(schema: ISchema): IField[] {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, field], index) => ({
    order: field['x-order'] ?? index,
    field: fieldOf(name, field, required.has(name))
  }));
  return fields.sort((a, b) => a.order - b.order).map(item => item.field);
}

function fieldOf(name: string, schema: IFieldSchema, required: boolean): IField {
  const kind = kindOf(schema);
  return {
    name,
    title: schema.title ?? name,
    kind,
    help: schema.description ?? '',
    unit: schema['x-unit'] ?? '',
    group: schema['x-group'] ?? 'General',
    advanced: schema['x-advanced'] ?? false,
    required,
    minimum: schema.minimum ?? null,
    maximum: schema.maximum ?? null,
    choices: (schema.enum ?? []).map(String),
    initial: initialOf(schema.default, kind)
  };
}

function kindOf(schema: IFieldSchema): Kind {
  if (schema['x-kind'] === 'file' || schema['x-kind'] === 'files') {
    return schema['x-kind'];
  }
  if (schema.enum?.length) {
    return 'choice';
  }
  return schema.type === 'number' || schema.type === 'integer' || schema.type === 'boolean' ? schema.type : 'text';
}

function initialOf(value: unknown, kind: Kind): string | boolean {
  if (kind === 'boolean') {
    return value === true;
  }
  return value === undefined || value === null ? '' : String(value);
}

export function groupsOf(fields: readonly IField[]): IGroup[] {
  const groups: IGroup[] = [];
  for (const field of fields) {
    const group = groups.find(item => item.title === field.group);
    if (group) {
      group.fields.push(field);
    } else {
      groups.push({ title: field.group, fields: [field] });
    }
  }
  return groups;
}

export function initialValues(fields: readonly IField[]): Typed {
  return Object.fromEntries(fields.map(field => [field.name, field.initial]));
}

/** The range that a number must lie in, in words: `80 to 400 kV`, `at least 1`; empty when there is none. */
export function rangeOf(field: IField): string {
  const unit = field.unit ? ` ${field.unit}` : '';
  if (field.minimum !== null && field.maximum !== null) {
    return `${field.minimum} to ${field.maximum}${unit}`;
  }
  if (field.minimum !== null) {
    return `at least ${field.minimum}${unit}`;
  }
  return field.maximum !== null ? `at most ${field.maximum}${unit}` : '';
}

/** Why a value cannot be taken; empty when it can. The server checks everything again. */
export function trouble(field: IField, typed: string | boolean): string {
  if (typeof typed === 'boolean') {
    return '';
  }
  const text = typed.trim();
  if (!text) {
    return field.required ? 'This is needed.' : '';
  }
  if (field.kind === 'number' || field.kind === 'integer') {
    const value = Number(text.replace(',', '.'));
    if (!isFinite(value)) {
      return 'Give a number.';
    }
    if (field.kind === 'integer' && !Number.isInteger(value)) {
      return 'Give a whole number.';
    }
    const outside =
      (field.minimum !== null && value < field.minimum) || (field.maximum !== null && value > field.maximum);
    return outside ? `Must be ${rangeOf(field)}.` : '';
  }
  if ((field.kind === 'file' || field.kind === 'files') && !/^[a-z][a-z0-9-]*:[^/]/.test(text)) {
    return 'Give a site and a path below your folder there, such as site:movies/*.mrcs';
  }
  return '';
}

/** The values in the types of the schema. A field without a default that is left empty is left out; an emptied one is told. */
export function parameters(fields: readonly IField[], typed: Typed): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const field of fields) {
    const value = typed[field.name];
    if (typeof value === 'boolean') {
      found[field.name] = value;
    } else if (value?.trim()) {
      const text = value.trim();
      found[field.name] = field.kind === 'number' || field.kind === 'integer' ? Number(text.replace(',', '.')) : text;
    } else if (field.initial !== '') {
      found[field.name] = ''; // otherwise the default would come back
    }
  }
  return found;
}
