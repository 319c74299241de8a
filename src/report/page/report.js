'use strict';
// Draws the plots of a report from the JSON of the page. One colour is one run, in every plot.

const data = JSON.parse(document.getElementById('data').textContent);
const colours = ['#0072b2', '#e69f00', '#009e73', '#d55e00', '#cc79a7', '#56b4e9', '#999999'];  // Okabe and Ito
const dashes = ['', '7 3', '2 3', '9 3 2 3', '14 4', '4 6'];
const axes = {
  tokens: {label: 'tokens', text: value => short(value)},
  step: {label: 'steps', text: value => short(value)},
  seconds: {label: 'wall time', text: value => duration(value)},
};
const state = {axis: 'tokens', smoothing: 0, hidden: new Set()};
const drawings = [];  // one function per plot
const isMap = new Set();  // those that smoothing does not change

const colourOf = run => colours[run % colours.length];

// Numbers as text.

function short(value) {
  const size = Math.abs(value);
  for (const [unit, suffix] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (size >= unit) return +(value / unit).toPrecision(4) + suffix;
  }
  return size > 0 && size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(4));
}

function duration(seconds) {
  if (seconds >= 86400) return +(seconds / 86400).toPrecision(3) + ' d';
  if (seconds >= 3600) return +(seconds / 3600).toPrecision(3) + ' h';
  return seconds >= 60 ? +(seconds / 60).toPrecision(3) + ' min' : +seconds.toPrecision(3) + ' s';
}

// Scales.

const isShown = (value, isLog) => Number.isFinite(value) && (!isLog || value > 0);

function makeScale(values, begin, end, isLog) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!isShown(value, isLog)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) [low, high] = isLog ? [1, 10] : [0, 1];
  const measure = isLog ? Math.log10 : value => value;
  let [a, b] = [measure(low), measure(high)];
  const margin = b > a ? 0.03 * (b - a) : 0.1 * Math.max(Math.abs(a), isLog ? 1 : 1e-6);
  [a, b] = [a - margin, b + margin];
  return {
    isLog, low: a, high: b,
    pixel: value => begin + (measure(value) - a) / (b - a) * (end - begin),
    value: pixel => a + (pixel - begin) / (end - begin) * (b - a),  // not of a logarithmic scale
  };
}

// At most `most` round ticks; on a logarithmic scale 1, 2 and 5 times powers of ten, if these are enough.
function ticksOf(scale, most) {
  if (scale.isLog) {
    const powers = [];
    for (let i = Math.floor(scale.low); i <= scale.high; ++i) powers.push(10 ** i);
    for (const factors of [[1, 2, 5], [1]]) {
      const ticks = powers.flatMap(power => factors.map(factor => factor * power)).filter(
        tick => Math.log10(tick) >= scale.low && Math.log10(tick) <= scale.high);
      if (ticks.length >= 3 && ticks.length <= most + 2) return ticks;
    }
    return ticksOf({low: 10 ** scale.low, high: 10 ** scale.high}, most).filter(tick => tick > 0);
  }
  const span = scale.high - scale.low;
  let step = 10 ** Math.floor(Math.log10(span / most));
  step *= [1, 2, 5, 10].find(factor => span / (step * factor) <= most) || 10;
  const ticks = [];
  for (let i = Math.ceil(scale.low / step); i * step <= scale.high; ++i) ticks.push(i * step);
  return ticks;
}

// Steps of a clock: ticks at whole seconds, minutes, hours or days.
function timeTicks(scale, most) {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const step = steps.find(size => (scale.high - scale.low) / size <= most);
  if (!step) return ticksOf(scale, most);
  const ticks = [];
  for (let i = Math.ceil(scale.low / step); i * step <= scale.high; ++i) ticks.push(i * step);
  return ticks;
}

// Moving average that gives each older point `factor` of the weight of the next.
function smooth(values, factor) {
  if (factor === 0) return values;
  let sum = 0, weight = 0;
  return values.map(value => {
    if (!Number.isFinite(value)) return value;
    sum = sum * factor + value;
    weight = weight * factor + 1;
    return sum / weight;
  });
}

// Elements.

function svg(parent, name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function html(parent, name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function label(root, x, y, anchor, text) {
  svg(root, 'text', {x, y, 'text-anchor': anchor, 'font-size': 11, fill: 'currentColor', opacity: .8}, text);
}

// A plot's frame: title, empty drawing of the container's width, and a box for values under the pointer.
function makePlot(parent, title) {
  const cell = html(parent, 'div');
  const plot = html(cell, 'div', 'plot');
  html(plot, 'div', 'title', title);
  const root = svg(plot, 'svg', {role: 'img', 'aria-label': title});
  const values = html(plot, 'div', 'values');
  values.hidden = true;
  return {cell, plot, root, values};
}

function showValues(frame, x, heading, rows) {
  const {values, plot} = frame;
  values.replaceChildren();
  html(values, 'div', '', heading);
  const table = html(values, 'table');
  for (const [colour, name, value, opacity] of rows.slice(0, 24)) {
    const line = html(table, 'tr');
    const mark = html(line, 'td', '', '\u25a0');
    mark.style.color = colour;
    mark.style.opacity = opacity;
    html(line, 'td', '', name).style.textAlign = 'left';
    html(line, 'td', '', value);
  }
  if (rows.length > 24) html(values, 'div', '', `and ${rows.length - 24} more`);
  values.hidden = false;
  const room = plot.clientWidth - values.offsetWidth;
  values.style.left = Math.max(0, Math.min(room, x > plot.clientWidth / 2 ? x - values.offsetWidth - 14 : x + 14)) + 'px';
  values.style.top = '2.2rem';
}

function nearest(xs, ys, x, isLog) {
  let best = -1;
  for (let i = 0; i < xs.length; ++i) {
    if (!Number.isFinite(xs[i]) || !isShown(ys[i], isLog)) continue;
    if (best < 0 || Math.abs(xs[i] - x) < Math.abs(xs[best] - x)) best = i;
  }
  return best;
}

// Lines over training, or over `x.own` where an axis has its own meaning (layers, shares).
//
// line     {run, name, x: {tokens, step, seconds} or {own}, y, dash, opacity, points, scatter, labels, isRaw}
// options  {title, unit, isLog, ownAxis, text}
function linePlot(parent, options, lines) {
  lines = lines.filter(line => line.y.some(Number.isFinite));
  if (!lines.length) return;
  const frame = makePlot(parent, options.title);
  const text = options.text || short;
  const legend = new Map(lines.filter(line => line.legend).map(line => [line.legend, line]));
  if (legend.size > 1) {
    const box = html(frame.cell, 'div', 'legend');
    for (const [name, line] of legend) {
      const item = html(box, 'span');
      const swatch = svg(item, 'svg', {class: 'swatch', viewBox: '0 0 28 10', width: 22, height: 8});
      svg(swatch, 'path', {d: 'M0 5H28', stroke: options.isOneRun ? colourOf(line.run) : 'currentColor', 'stroke-width': 3,
                           'stroke-dasharray': line.dash || '', opacity: line.opacity || 1});
      item.append(name);
    }
  }

  const draw = () => {
    const shown = lines.filter(line => !state.hidden.has(line.run)).map(line => {
      const x = line.x.own || line.x[state.axis];
      const y = line.isRaw || options.ownAxis ? line.y : smooth(line.y, state.smoothing);
      return {...line, xs: x, ys: y, isSmoothed: y !== line.y};
    });
    const width = Math.max(frame.plot.clientWidth, 200), height = 260;
    const [left, right, top, bottom] = [56, 10, 8, 36];
    const {root} = frame;
    root.replaceChildren();
    root.setAttribute('viewBox', `0 0 ${width} ${height}`);
    root.setAttribute('height', height);
    const x = makeScale(shown.flatMap(line => line.xs.filter((_, i) => isShown(line.ys[i], options.isLog))), left, width - right);
    const y = makeScale(shown.flatMap(line => line.y), height - bottom, top, options.isLog);
    const axis = options.ownAxis ? {label: options.ownAxis, text: short} : axes[state.axis];
    const most = Math.max(2, Math.floor(width / 90));
    for (const tick of !options.ownAxis && state.axis === 'seconds' ? timeTicks(x, most) : ticksOf(x, most)) {
      svg(root, 'path', {d: `M${x.pixel(tick)} ${top}V${height - bottom}`, stroke: 'currentColor', opacity: .12});
      label(root, x.pixel(tick), height - bottom + 14, 'middle', axis.text(tick));
    }
    for (const tick of ticksOf(y, 5)) {
      svg(root, 'path', {d: `M${left} ${y.pixel(tick)}H${width - right}`, stroke: 'currentColor', opacity: .12});
      label(root, left - 5, y.pixel(tick) + 4, 'end', short(tick));
    }
    label(root, width - right, height - 4, 'end', axis.label);
    label(root, left, height - 4, 'start', options.unit || '');
    for (const line of shown) {
      const path = ys => {
        let commands = '', isDown = false;
        line.xs.forEach((value, i) => {
          const can = Number.isFinite(value) && isShown(ys[i], options.isLog);
          if (can) commands += `${isDown ? 'L' : 'M'}${x.pixel(value).toFixed(1)} ${y.pixel(ys[i]).toFixed(1)}`;
          isDown = can;
        });
        return commands;
      };
      const style = {fill: 'none', stroke: colourOf(line.run), 'stroke-dasharray': line.dash || '', 'stroke-width': 1.6,
                     'stroke-linejoin': 'round'};
      if (!line.scatter) svg(root, 'path', {...style, d: path(line.ys), opacity: line.opacity || 1});
      if (line.isSmoothed) svg(root, 'path', {...style, d: path(line.y), opacity: .2});
      if (!line.points && !line.scatter) continue;
      line.xs.forEach((value, i) => {
        if (!Number.isFinite(value) || !isShown(line.ys[i], options.isLog)) return;
        svg(root, 'circle', {cx: x.pixel(value), cy: y.pixel(line.ys[i]), r: line.scatter ? 4 : 2.5,
                             fill: colourOf(line.run), opacity: line.opacity || 1});
        if (line.scatter && shown.length < 3 && line.labels) {
          const isRight = x.pixel(value) > width * 0.7;
          label(root, x.pixel(value) + (isRight ? -7 : 7), y.pixel(line.ys[i]) - 6, isRight ? 'end' : 'start', line.labels[i]);
        }
      });
    }
    const marks = svg(root, 'g', {});
    const rowsOf = (line, i) => [colourOf(line.run), line.name, text(line.ys[i], line, i), line.opacity || 1];
    frame.plot.onpointermove = event => {
      const at = event.clientX - root.getBoundingClientRect().left;
      const over = event.clientY - root.getBoundingClientRect().top;
      marks.replaceChildren();
      let points = shown.map(line => [line, nearest(line.xs, line.ys, x.value(at), options.isLog)]).filter(([, i]) => i >= 0);
      if (!points.length) return;
      if (options.isScatter) {  // the nearest point in both directions alone
        const all = shown.flatMap(line => line.xs.map((_, i) => [line, i])).filter(
          ([line, i]) => Number.isFinite(line.xs[i]) && isShown(line.ys[i], options.isLog));
        const distance = ([line, i]) => Math.hypot(x.pixel(line.xs[i]) - at, y.pixel(line.ys[i]) - over);
        points = [all.reduce((best, one) => distance(one) < distance(best) ? one : best)];
      }
      const there = points.reduce((best, [line, i]) =>
        Math.abs(line.xs[i] - x.value(at)) < Math.abs(best - x.value(at)) ? line.xs[i] : best, Infinity);
      svg(marks, 'path', {d: `M${x.pixel(there)} ${top}V${height - bottom}`, stroke: 'currentColor', opacity: .5});
      for (const [line, i] of points) {
        svg(marks, 'circle', {cx: x.pixel(line.xs[i]), cy: y.pixel(line.ys[i]), r: 3.5, fill: colourOf(line.run)});
      }
      showValues(frame, x.pixel(there), `${axis.label} ${axis.text(there)}`, points.map(([line, i]) => rowsOf(line, i)));
    };
    frame.plot.onpointerleave = () => {
      frame.values.hidden = true;
      marks.replaceChildren();
    };
  };
  drawings.push(draw);
}

// Rows of cells over training: experts by time, with their scale.
function heatMap(parent, run, map) {
  const frame = makePlot(parent, map.title);
  const highest = Math.max(...map.rows.flat(), 1e-9);
  const scaleHigh = highest > 0.5 ? 1 : highest;
  const draw = () => {
    const x = map.x[state.axis];
    const width = Math.max(frame.plot.clientWidth, 200);
    const [left, right, top] = [56, 64, 4];
    const rowHeight = Math.max(4, Math.min(14, 280 / map.rows.length));
    const bottom = top + rowHeight * map.rows.length, height = bottom + 34;
    const {root} = frame;
    root.replaceChildren();
    root.setAttribute('viewBox', `0 0 ${width} ${height}`);
    root.setAttribute('height', height);
    // A column ends at its logged step and begins at the one before.
    const edges = [0, ...x], last = x[x.length - 1];
    const place = value => left + value / last * (width - right - left);
    map.rows.forEach((row, expert) => {
      row.forEach((value, column) => {
        svg(root, 'rect', {x: place(edges[column]).toFixed(1), y: top + rowHeight * expert,
                           width: Math.max(place(edges[column + 1]) - place(edges[column]), .5).toFixed(1),
                           height: rowHeight - (rowHeight > 6 ? 1 : 0), fill: colourOf(run),
                           'fill-opacity': Math.min(value / scaleHigh, 1).toFixed(2)});
      });
    });
    const everyRow = Math.ceil(12 / rowHeight);
    for (let expert = 0; expert < map.rows.length; expert += everyRow) {
      label(root, left - 5, top + rowHeight * (expert + .5) + 4, 'end', expert);
    }
    const range = {low: 0, high: last}, most = Math.max(2, Math.floor(width / 110));
    for (const tick of state.axis === 'seconds' ? timeTicks(range, most) : ticksOf(range, most)) {
      svg(root, 'path', {d: `M${place(tick)} ${bottom}v4`, stroke: 'currentColor', opacity: .5});
      label(root, place(tick), bottom + 15, 'middle', axes[state.axis].text(tick));
    }
    label(root, width - right, height - 4, 'end', axes[state.axis].label);
    label(root, left, height - 4, 'start', 'expert, by row');
    for (let part = 0; part < 10; ++part) {
      svg(root, 'rect', {x: width - right + 12, y: top + (9 - part) * (bottom - top) / 10, width: 10, height: (bottom - top) / 10 + .3,
                         fill: colourOf(run), 'fill-opacity': (part + .5) / 10});
    }
    for (const share of [0, .5, 1]) {
      label(root, width - right + 26, top + 8 + (1 - share) * (bottom - top - 8), 'start', short(share * scaleHigh));
    }
    frame.plot.onpointermove = event => {
      const box = root.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      const expert = Math.floor((py - top) / rowHeight);
      const column = x.findIndex((_, i) => px < place(edges[i + 1]));
      if (expert < 0 || expert >= map.rows.length || px < left || column < 0) {
        frame.values.hidden = true;
        return;
      }
      showValues(frame, px, `${axes[state.axis].label} ${axes[state.axis].text(x[column])}`,
                 [[colourOf(run), `expert ${expert}`, short(map.rows[expert][column]), 1]]);
    };
    frame.plot.onpointerleave = () => { frame.values.hidden = true; };
  };
  drawings.push(draw);
  isMap.add(draw);
}

// The plots.

function plotsOfAll() {
  const parent = document.getElementById('all-runs');
  const {runs} = data;
  const training = (key, more = {}) => runs.map((run, i) => ({run: i, name: run.name, x: run.x, y: run.series[key] || [], ...more}));
  const withBits = (value, line, i) => {
    const bits = line.bits && line.bits[i];
    return short(value) + (line.isLoss ? `, perplexity ${short(Math.exp(value))}` : '') + (bits ? `, ${short(bits)} bits/byte` : '');
  };
  const validation = (value, isLoss) => runs.flatMap((run, i) => (run.validation.policies || []).map((policy, j) => ({
    run: i, name: `${run.name} ${policy.policy}`, legend: policy.policy, x: run.validation.x, y: policy.loss.map(loss => loss === null ? null : value(loss)), bits: policy.bits,
    dash: dashes[j % dashes.length], points: true, isRaw: true, isLoss})));
  const first = validation(loss => loss, true).filter((line, i, all) => all.findIndex(other => other.run === line.run) === i);
  linePlot(parent, {title: 'Language-model loss', unit: 'nats per token', text: withBits},
           [...training('lm_loss', {legend: 'training', isLoss: true}).map(line => ({...line, name: `${line.name} training`})),
            ...first.map(line => ({...line, name: `${runs[line.run].name} validation`, legend: 'validation', dash: '7 3'}))]);
  linePlot(parent, {title: 'Validation perplexity by policy', unit: 'perplexity', text: withBits},
           validation(loss => Math.exp(loss), false));
  linePlot(parent, {title: 'Learning rate'}, training('learning_rate', {isRaw: true}));
  linePlot(parent, {title: 'Gradient norm before clipping', isLog: true}, training('gradient_norm'));
  linePlot(parent, {title: 'Throughput', unit: 'tokens per second'}, training('tokens_per_second'));
  linePlot(parent, {title: 'Speed of the model\u2019s operations', unit: 'FLOP/s'}, training('flops_per_second'));
  linePlot(parent, {title: 'Peak memory of rank 0', unit: 'GiB'}, training('memory_gib', {isRaw: true}));
  const last = runs.map((run, i) => {
    const policies = (run.validation.policies || []).filter(policy => Number.isFinite(policy.share));
    return {run: i, name: run.name, x: {own: policies.map(policy => policy.share)}, labels: policies.map(policy => policy.policy),
            y: policies.map(policy => Math.exp(policy.loss[policy.loss.length - 1])), scatter: true};
  });
  if (data.curve) last.push({run: runs.length, name: 'curve', scatter: true, ...data.curve, x: {own: data.curve.x}});
  linePlot(parent, {title: 'Perplexity against active parameters', unit: 'perplexity', isScatter: true,
                    ownAxis: 'active share of parameters that are not embeddings, %',
                    text: (value, line, i) => `${line.labels[i]}: ${short(value)}`}, last);
}

function plotsOfRun(run, index) {
  const parent = document.getElementById(`run-${index}`);
  // Layers from light to dark.
  const shade = (i, n) => n < 2 ? 1 : .3 + .7 * i / (n - 1);
  const percent = value => (100 * value).toFixed(1) + '%';
  linePlot(parent, {title: 'Loss terms beside the language model\u2019s, times their weights', unit: 'nats per token', isOneRun: true},
           Object.entries(run.terms).map(([name, y], i) => ({run: index, name, legend: name, x: run.x, y, dash: dashes[i % dashes.length]})));
  linePlot(parent, {title: 'Mutual information as a share of its bound', isOneRun: true, text: percent},
           Object.entries(run.shares).map(([name, y], i) => ({run: index, name, legend: name, x: run.x, y, dash: dashes[i % dashes.length]})));
  linePlot(parent, {title: 'Active experts at the last validation', unit: 'experts per token', ownAxis: 'layer', isOneRun: true},
           run.active.map(({name, y}, i) => ({run: index, name, legend: name, x: {own: y.map((_, layer) => layer)}, y, points: true,
                                              dash: dashes[i % dashes.length]})));
  for (const {title, unit, x, layers} of run.layers) {
    linePlot(parent, {title, unit, isOneRun: true}, layers.map((y, i) => ({
      run: index, name: `layer ${i}`, x, y, opacity: shade(i, layers.length),
      legend: i === 0 ? 'layer 0' : i === layers.length - 1 ? `layer ${i}` : undefined})));
  }
  for (const map of run.loads) heatMap(document.getElementById(`loads-${index}`), index, map);
}

// Controls.

const lines = () => drawings.filter(draw => !isMap.has(draw));

function makeControls() {
  const bar = document.getElementById('controls');
  const axisLabel = html(bar, 'label', '', 'axis');
  const select = html(axisLabel, 'select');
  for (const [key, axis] of Object.entries(axes)) html(select, 'option', '', axis.label).value = key;
  select.onchange = () => { state.axis = select.value; redraw(); };
  const smoothLabel = html(bar, 'label', '', 'smoothing');
  const slider = html(smoothLabel, 'input');
  Object.assign(slider, {type: 'range', min: 0, max: 0.98, step: 0.02, value: 0});
  const amount = html(smoothLabel, 'span', '', '0');
  slider.oninput = () => { state.smoothing = +slider.value; amount.textContent = slider.value; redraw(lines()); };
  data.runs.forEach((run, i) => {
    const item = html(bar, 'label');
    const box = html(item, 'input');
    Object.assign(box, {type: 'checkbox', checked: true});
    box.onchange = () => {
      if (box.checked) state.hidden.delete(i); else state.hidden.add(i);
      redraw(lines());
    };
    svg(svg(item, 'svg', {class: 'swatch', viewBox: '0 0 28 10', width: 22, height: 8}), 'rect',
        {width: 28, height: 10, fill: colourOf(i)});
    item.append(run.name);
  });
}

const pending = new Set();
function redraw(some = drawings) {
  if (!pending.size) {
    requestAnimationFrame(() => {
      const due = [...pending];
      pending.clear();
      for (const draw of due) draw();
    });
  }
  for (const draw of some) pending.add(draw);
}

makeControls();
plotsOfAll();
data.runs.forEach(plotsOfRun);
for (const draw of drawings) draw();
let width = document.body.clientWidth;
addEventListener('resize', () => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  redraw();
});
