/** Numbers, sizes and times as people read them; sizes in powers of 1000, as storage is sold. */

const SIZES = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

export function size(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined || !isFinite(bytes)) {
    return '';
  }
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < SIZES.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${SIZES[unit]}`;
}

export function rate(bytesPerSecond: number | null | undefined): string {
  return bytesPerSecond ? `${size(bytesPerSecond)}/s` : '';
}

/** A span of time, with two units at most: `8 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) {
    return `${s} s`;
  }
  if (s < 3600) {
    return pair(Math.floor(s / 60), 'min', s % 60, 's');
  }
  if (s < 86400) {
    return pair(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
  }
  return pair(Math.floor(s / 86400), 'd', Math.floor((s % 86400) / 3600), 'h');
}

function pair(big: number, bigUnit: string, small: number, smallUnit: string): string {
  return small ? `${big} ${bigUnit} ${small} ${smallUnit}` : `${big} ${bigUnit}`;
}

/** A moment as local date and time, the same in every language: `2026-05-04 13:07`. */
export function moment(epoch: number | null | undefined): string {
  if (!epoch) {
    return '';
  }
  const date = new Date(epoch * 1000);
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** How long ago something was: `12 s ago`, or the moment itself when it is more than a day. */
export function ago(epoch: number, now: number): string {
  const seconds = now - epoch;
  return seconds < 86400 ? `${duration(seconds)} ago` : moment(epoch);
}

export function percent(fraction: number | null | undefined): string {
  return fraction === null || fraction === undefined ? '' : `${Math.round(fraction * 100)} %`;
}

/** A number that a program worked out, with four digits that matter. */
export function figure(value: number | string | null): string {
  if (typeof value !== 'number') {
    return value === null ? '–' : value;
  }
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}
