/** A layered layout of a run's steps: each step one layer below the lowest of those it comes after. */

export interface INode {
  id: string;
  after: string[];
}

export interface IPlaced {
  id: string;
  layer: number;
  column: number;
  x: number;
  y: number;
}

export interface IEdge {
  from: string;
  to: string;
  path: string;
}

export interface ILayout {
  nodes: IPlaced[];
  edges: IEdge[];
  width: number;
  height: number;
}

export interface IMeasures {
  width: number;
  height: number;
  gapX: number;
  gapY: number;
}

/**
 * Place the nodes. Those of one layer stand side by side in the order of their predecessors' middle, which keeps lines from crossing
 * in the small graphs of pipelines. Unknown predecessors are ignored, and a cycle cannot hang it: such nodes go to the last layer.
 */
export function layout(nodes: readonly INode[], measures: IMeasures): ILayout {
  const layers = inLayers(nodes);
  const columns = new Map<string, number>();
  const widest = Math.max(1, ...layers.map(layer => layer.length));
  const placed: IPlaced[] = [];
  layers.forEach((layer, row) => {
    const middle = (node: INode) => {
      const found = node.after.map(id => columns.get(id)).filter((c): c is number => c !== undefined);
      return found.length ? found.reduce((a, b) => a + b, 0) / found.length : 0;
    };
    const ordered = layer.map((node, index) => ({ node, index, middle: middle(node) }));
    ordered.sort((a, b) => a.middle - b.middle || a.index - b.index);
    const start = (widest - layer.length) / 2;
    ordered.forEach(({ node }, index) => {
      const column = start + index;
      columns.set(node.id, column);
      placed.push({
        id: node.id,
        layer: row,
        column,
        x: column * (measures.width + measures.gapX),
        y: row * (measures.height + measures.gapY)
      });
    });
  });
  const byId = new Map(placed.map(node => [node.id, node]));
  return {
    nodes: placed,
    edges: nodes.flatMap(node => edgesTo(node, byId, measures)),
    width: widest * (measures.width + measures.gapX) - measures.gapX,
    height: Math.max(1, layers.length) * (measures.height + measures.gapY) - measures.gapY
  };
}

function inLayers(nodes: readonly INode[]): INode[][] {
  const known = new Set(nodes.map(node => node.id));
  const layerOf = new Map<string, number>();
  let waiting = [...nodes];
  while (waiting.length) {
    const ready = waiting.filter(node => node.after.every(id => !known.has(id) || layerOf.has(id)));
    const next = ready.length ? ready : waiting;
    const last = Math.max(-1, ...layerOf.values());
    const found = next.map(node => {
      const before = node.after.map(id => layerOf.get(id) ?? -1);
      return [node.id, ready.length ? Math.max(-1, ...before) + 1 : last + 1] as const;
    });
    found.forEach(([id, layer]) => layerOf.set(id, layer));
    waiting = waiting.filter(node => !layerOf.has(node.id));
  }
  const layers: INode[][] = [];
  for (const node of nodes) {
    const layer = layerOf.get(node.id) ?? 0;
    (layers[layer] ??= []).push(node);
  }
  return layers;
}

function edgesTo(node: INode, byId: Map<string, IPlaced>, measures: IMeasures): IEdge[] {
  const to = byId.get(node.id);
  return node.after.flatMap(id => {
    const from = byId.get(id);
    return from && to && from.layer < to.layer ? [{ from: id, to: node.id, path: curve(from, to, measures) }] : [];
  });
}

/** A line from the bottom of one node to the top of another; one that passes a layer runs beside the nodes in between. */
function curve(from: IPlaced, to: IPlaced, measures: IMeasures): string {
  const { width, height, gapX, gapY } = measures;
  const x1 = from.x + width / 2;
  const y1 = from.y + height;
  const x2 = to.x + width / 2;
  const y2 = to.y;
  if (to.layer - from.layer > 1 && from.column === to.column) {
    const side = from.x + width + Math.min(gapX, 14) * 0.7;
    const middle = from.y + height / 2;
    return `M${from.x + width},${middle} C${side + 6},${middle} ${side + 6},${to.y + height / 2} ${to.x + width},${to.y + height / 2}`;
  }
  return `M${x1},${y1} C${x1},${y1 + gapY * 0.6} ${x2},${y2 - gapY * 0.6} ${x2},${y2}`;
}
