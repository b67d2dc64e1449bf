import { defineConfig } from 'vitest/config';

/** Icons are imported as text, as the bundler does it. */
const svgAsText = {
  name: 'svg-as-text',
  enforce: 'pre' as const,
  transform(code: string, id: string) {
    return id.endsWith('.svg') ? `export default ${JSON.stringify(code)};` : null;
  }
};

export default defineConfig({
  plugins: [svgAsText],
  test: {
    environment: 'jsdom',
    include: ['src/__tests__/**/*.test.{ts,tsx}'],
    setupFiles: ['src/__tests__/setup.ts'],
    server: { deps: { inline: [/@jupyterlab/, /@lumino/, /@jupyter/] } }
  }
});
