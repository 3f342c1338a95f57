'use strict';
(() => {
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const data = JSON.parse(find('data').textContent);
  const canvas = find('map');
  const pen = canvas.getContext('2d');
  const HIT_PX = { mouse: 9, touch: 20, pen: 14 };

  // ---- the drive: centimetres and differences in the file, metres here -------------------------
  const line = (deltas) => {
    const points = [];
    for (let i = 0, x = 0, y = 0; i < deltas.length; i += 2) {
      points.push([(x += deltas[i]) / 100, (y += deltas[i + 1]) / 100]);
    }
    return points;
  };
  const element = (entry, frame) => {
    const points = line(entry.v);
    let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
    for (const [x, y] of points) {
      left = Math.min(left, x); right = Math.max(right, x);
      low = Math.min(low, y); high = Math.max(high, y);
    }
    return {
      points, frame, category: entry.c, closed: !!entry.k, score: entry.s, id: entry.i,
      covariance: entry.g, box: [left, low, right, high],
    };
  };
  const frames = data.frames.map((item, index) => ({
    time: item.t, pose: [item.p[0] / 100, item.p[1] / 100, item.p[2] / 1000], strip: item.s,
    elements: item.e.map((entry) => element(entry, index)),
  }));
  const truth = data.truth.map((entry) => element(entry, -1));
  const categories = new Map(data.categories.map((item) => [item.id, item]));

  // ---- what is shown ---------------------------------------------------------------------------
  const shown = { all: true, truth: truth.length > 0, path: true, sigma: false };
  for (const id of categories.keys()) shown[id] = true;
  const state = { frame: 0, score: data.min_score, follow: false, picked: null, pinned: false };
  const view = { x: 0, y: 0, scale: 4 };
  let size = [1, 1], ratio = 1, pending = false, timer = 0;

  const visible = (item) => shown[item.category] && (item.score === undefined || item.score >= state.score);
  const trace = (path, item) => {
    item.points.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    if (item.closed) path.closePath();
  };
  // One path per frame and category: strokes of several frames add up where they agree.
  const paths = frames.map(() => null);
  const pathsOf = (index) => {
    if (paths[index]) return paths[index];
    const result = new Map();
    for (const item of frames[index].elements) {
      if (item.score !== undefined && item.score < state.score) continue;
      if (!result.has(item.category)) result.set(item.category, new Path2D());
      trace(result.get(item.category), item);
    }
    return (paths[index] = result);
  };
  const truthPath = new Path2D();
  truth.forEach((item) => trace(truthPath, item));
  // Nobody drives that far between two frames: there another drive begins.
  const drivenPath = new Path2D();
  frames.forEach(({ pose: [x, y] }, i) => {
    const before = i ? frames[i - 1].pose : null;
    const isNear = before && Math.hypot(x - before[0], y - before[1]) < 30 * data.stride;
    if (isNear) drivenPath.lineTo(x, y); else drivenPath.moveTo(x, y);
  });

  // ---- drawing ---------------------------------------------------------------------------------
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const request = () => {
    if (!pending) { pending = true; requestAnimationFrame(draw); }
  };
  const stroke = (path, style, pixels, alpha = 1, to = pen) => {
    to.globalAlpha = alpha; to.strokeStyle = style; to.lineWidth = pixels / view.scale;
    to.stroke(path);
  };
  const aim = (to) => {
    const k = ratio * view.scale;
    to.setTransform(k, 0, 0, -k, ratio * size[0] / 2 - k * view.x, ratio * size[1] / 2 + k * view.y);
    to.lineJoin = to.lineCap = 'round';
  };
  const thin = () => Math.max(1.2, Math.min(3, 0.12 * view.scale));

  // The lines of all frames are many: they are kept as a picture. While the view moves and drawing
  // them anew takes long, the picture moves with it and is renewed a moment later.
  const sheet = { canvas: document.createElement('canvas'), key: '', look: '', cost: 0, timer: 0 };
  const sheetLook = () => JSON.stringify([shown, state.score, root.dataset.theme, size, ratio]);
  const renewSheet = () => {
    const begin = performance.now(), to = sheet.canvas.getContext('2d');
    sheet.canvas.width = canvas.width;
    sheet.canvas.height = canvas.height;
    aim(to);
    if (shown.truth) stroke(truthPath, colour('truth'), 3.2 * thin(), 0.75, to);
    if (shown.all) {
      for (let i = 0; i < frames.length; i += 1) {
        for (const [id, path] of pathsOf(i)) {
          if (shown[id]) stroke(path, categories.get(id).colour, thin(), 0.3, to);
        }
      }
    }
    Object.assign(sheet, { look: sheetLook(), key: JSON.stringify(view), view: { ...view } });
    sheet.cost = performance.now() - begin;
  };
  const drawSheet = () => {
    const isSame = sheet.look === sheetLook();
    if (!isSame || (sheet.key !== JSON.stringify(view) && sheet.cost < 30)) renewSheet();
    else if (sheet.key !== JSON.stringify(view) && !sheet.timer) {
      sheet.timer = setTimeout(() => { sheet.timer = 0; renewSheet(); request(); }, Math.max(180, 2 * sheet.cost));
    }
    const k = view.scale / sheet.view.scale;
    pen.setTransform(
      k, 0, 0, k,
      ratio * (size[0] / 2 * (1 - k) + (sheet.view.x - view.x) * view.scale),
      ratio * (size[1] / 2 * (1 - k) - (sheet.view.y - view.y) * view.scale),
    );
    pen.drawImage(sheet.canvas, 0, 0);
  };
  const sigmas = (item, index) => {
    const [xx, xy, yy] = item.covariance.slice(3 * index, 3 * index + 3).map((value) => value / 1e4);
    const mean = (xx + yy) / 2, root2 = Math.hypot((xx - yy) / 2, xy);
    return [Math.sqrt(Math.max(0, mean + root2)), Math.sqrt(Math.max(0, mean - root2)), Math.atan2(2 * xy, xx - yy) / 2];
  };
  const ellipses = (item, style) => {
    if (!item.covariance) return;
    const path = new Path2D();
    item.points.forEach(([x, y], i) => {
      const [long, short, angle] = sigmas(item, i);
      path.moveTo(x + long * Math.cos(angle), y + long * Math.sin(angle));
      path.ellipse(x, y, long, short, angle, 0, 2 * Math.PI);
    });
    stroke(path, style, 1.2, 0.9);
  };
  function draw() {
    pending = false;
    const { pose, elements } = frames[state.frame];
    if (state.follow) [view.x, view.y] = pose;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.globalAlpha = 1;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    drawSheet();
    aim(pen);
    if (shown.path) {
      stroke(drivenPath, colour('page'), 5, 0.9);
      stroke(drivenPath, colour('vehicle'), 2.4, 0.8);
    }
    for (const item of elements) {
      if (!visible(item)) continue;
      const path = new Path2D(), { colour: style, area } = categories.get(item.category);
      trace(path, item);
      if (area && item.closed) { pen.globalAlpha = 0.18; pen.fillStyle = style; pen.fill(path); }
      stroke(path, style, thin() + 1.6, item.score === undefined ? 1 : 0.3 + 0.7 * item.score);
      if (shown.sigma) ellipses(item, style);
    }
    drawVehicle(pose);
    if (state.picked) drawPicked(state.picked);
    drawScale();
  }
  const drawPicked = (item) => {
    const path = new Path2D(), dots = new Path2D(), radius = 3 / view.scale;
    trace(path, item);
    // Dots that would melt into one thick line say nothing.
    let [ax, ay] = [Infinity, Infinity];
    for (const [x, y] of item.points) {
      if (Math.hypot(x - ax, y - ay) < 4 * radius) continue;
      dots.moveTo(x + radius, y); dots.arc(x, y, radius, 0, 7);
      [ax, ay] = [x, y];
    }
    stroke(path, colour('page'), 9, 0.9);
    stroke(path, colour('ink'), 6.5);
    stroke(path, categories.get(item.category).colour, 3.6);
    ellipses(item, colour('ink'));
    pen.globalAlpha = 1; pen.fillStyle = colour('ink'); pen.fill(dots);
  };
  const drawVehicle = ([x, y, yaw]) => {
    pen.save();
    pen.translate(x, y); pen.rotate(yaw);
    const [back, front, right, left] = data.range, body = new Path2D(), area = new Path2D();
    area.rect(back, right, front - back, left - right);
    pen.setLineDash([6 / view.scale, 5 / view.scale]);
    stroke(area, colour('muted'), 1.2, 0.8);
    pen.setLineDash([]);
    const grow = Math.max(1, 9 / (4.6 * view.scale));
    body.moveTo(2.8 * grow, 0); body.lineTo(-1.8 * grow, 1.3 * grow);
    body.lineTo(-1 * grow, 0); body.lineTo(-1.8 * grow, -1.3 * grow); body.closePath();
    pen.globalAlpha = 1; pen.fillStyle = colour('vehicle'); pen.fill(body);
    stroke(body, colour('page'), 1.5);
    pen.restore();
  };
  const drawScale = () => {
    const step = [500, 200, 100, 50, 20, 10, 5, 2, 1].find((metres) => metres * view.scale < 130) || 0.5;
    find('scale').style.width = `${step * view.scale}px`;
    find('scale').firstElementChild.textContent = `${step} m`;
  };

  // ---- picking ---------------------------------------------------------------------------------
  const world = (px, py) => [view.x + (px - size[0] / 2) / view.scale, view.y - (py - size[1] / 2) / view.scale];
  const distance = (item, x, y) => {
    let best = Infinity;
    const { points } = item, count = item.closed ? points.length : points.length - 1;
    for (let i = 0; i < count; i += 1) {
      const [ax, ay] = points[i], [bx, by] = points[(i + 1) % points.length];
      const dx = bx - ax, dy = by - ay, length2 = dx * dx + dy * dy;
      const share = length2 ? Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length2)) : 0;
      best = Math.min(best, Math.hypot(x - ax - share * dx, y - ay - share * dy));
    }
    return best;
  };
  const nearest = (items, x, y, reach) => {
    let found = null, best = reach;
    for (const item of items) {
      const [left, low, right, high] = item.box;
      if (!visible(item) || x < left - best || x > right + best || y < low - best || y > high + best) continue;
      const far = distance(item, x, y);
      if (far < best) { best = far; found = item; }
    }
    return found;
  };
  const pick = (px, py, kind) => {
    const [x, y] = world(px, py), reach = (HIT_PX[kind] || HIT_PX.mouse) / view.scale;
    let found = nearest(frames[state.frame].elements, x, y, reach);
    for (let i = 0; !found && shown.all && i < frames.length; i += 1) found = nearest(frames[i].elements, x, y, reach);
    if (!found && shown.truth) found = nearest(truth, x, y, reach);
    return found && { item: found, at: [x, y] };
  };
  const select = (hit) => {
    state.picked = hit && hit.item;
    canvas.classList.toggle('over', !!hit);
    describe(hit);
    request();
  };
  const describe = (hit) => {
    const box = find('details');
    if (!hit) {
      const count = frames[state.frame].elements.filter(visible).length;
      box.innerHTML = `<p>${count} elements in this frame. Point at a line, or tap it, to see its score and how sure it is.</p>`;
      return;
    }
    const { item, at } = hit, { name, colour: style } = categories.get(item.category);
    const rows = [];
    let length = 0, near = 0, best = Infinity;
    item.points.forEach(([x, y], i) => {
      const before = item.points[i ? i - 1 : item.points.length - 1];
      if (i || item.closed) length += Math.hypot(x - before[0], y - before[1]);
      const far = Math.hypot(x - at[0], y - at[1]);
      if (far < best) { best = far; near = i; }
    });
    if (item.score !== undefined) rows.push(['Score', item.score.toFixed(2)]);
    if (item.id) rows.push(['Id', item.id]);
    rows.push([item.closed ? 'Perimeter' : 'Length', `${length.toFixed(1)} m`], ['Vertices', item.points.length]);
    if (item.covariance) {
      const [long, short] = sigmas(item, near);
      rows.push(['σ, nearest', `${long.toFixed(2)} × ${short.toFixed(2)} m`]);
    } else if (item.score !== undefined) rows.push(['Covariance', 'not predicted']);
    if (item.frame >= 0) rows.push(['Frame', data.frames[item.frame].n]);
    const bar = item.score === undefined ? '' : `<div class="bar"><i style="width:${100 * item.score}%"></i></div>`;
    box.innerHTML = `<div style="--colour:${style}"><h2>${name.replace('_', ' ')}${item.frame < 0 ? ' (ground truth)' : ''}</h2>${bar}<dl>${
      rows.map(([key, value]) => `<dt>${key}</dt><dd>${value}</dd>`).join('')}</dl></div>`;
  };

  // ---- frames ----------------------------------------------------------------------------------
  const showFrame = (index) => {
    state.frame = Math.max(0, Math.min(frames.length - 1, index));
    find('frame').value = state.frame;
    const frame = frames[state.frame];
    find('clock').textContent = `${frame.time.toFixed(1)} s · frame ${data.frames[state.frame].n}`;
    if (frame.strip >= 0) find('strip').src = `data:image/jpeg;base64,${data.strips[frame.strip]}`;
    find('cameras').hidden = data.strips.length === 0;
    if (!state.pinned) select(null);
    request();
  };
  const play = (isOn) => {
    clearInterval(timer);
    timer = isOn ? setInterval(() => showFrame((state.frame + 1) % frames.length), data.period_ms) : 0;
    find('play').classList.toggle('on', isOn);
    find('play').title = isOn ? 'Pause' : 'Play';
  };

  // ---- the view --------------------------------------------------------------------------------
  const zoomAt = (factor, px, py) => {
    const [x, y] = world(px, py);
    view.scale = Math.max(0.05, Math.min(200, view.scale * factor));
    if (!state.follow) {
      view.x = x - (px - size[0] / 2) / view.scale;
      view.y = y + (py - size[1] / 2) / view.scale;
    }
    request();
  };
  const setFollow = (isOn) => {
    state.follow = isOn;
    find('follow').setAttribute('aria-pressed', isOn);
    request();
  };
  const fit = () => {
    const reach = data.range.map(Math.abs), far = Math.max(...reach);
    let [left, low, right, high] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const { pose: [x, y] } of frames) {
      left = Math.min(left, x); right = Math.max(right, x);
      low = Math.min(low, y); high = Math.max(high, y);
    }
    setFollow(false);
    [view.x, view.y] = [(left + right) / 2, (low + high) / 2];
    view.scale = Math.min(size[0] / (right - left + 2 * far), size[1] / (high - low + 2 * far));
    request();
  };
  const resize = () => {
    const box = canvas.getBoundingClientRect();
    ratio = window.devicePixelRatio || 1;
    size = [box.width, box.height];
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    request();
  };

  // ---- pointers --------------------------------------------------------------------------------
  const held = new Map();
  let moved = 0;
  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener('pointerdown', (event) => {
    try { canvas.setPointerCapture(event.pointerId); } catch (_) { /* a pointer that is gone again */ }
    held.set(event.pointerId, local(event));
    if (held.size === 1) moved = 0;
  });
  canvas.addEventListener('pointermove', (event) => {
    const now = local(event), before = held.get(event.pointerId);
    if (!before) {
      if (!state.pinned && event.pointerType === 'mouse') select(pick(...now, 'mouse'));
      return;
    }
    const others = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (others.length) {
      const apart = (at) => Math.hypot(at[0] - others[0][0], at[1] - others[0][1]) || 1;
      zoomAt(apart(now) / apart(before), (now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2);
    }
    if (moved > 5) {
      if (state.follow) setFollow(false);
      canvas.classList.add('dragging');
      const share = others.length ? 2 : 1;
      view.x -= (now[0] - before[0]) / view.scale / share;
      view.y += (now[1] - before[1]) / view.scale / share;
      request();
    }
    held.set(event.pointerId, now);
  });
  const release = (event) => {
    if (!held.delete(event.pointerId)) return;
    canvas.classList.remove('dragging');
    if (event.type === 'pointerup' && moved <= 5 && held.size === 0) {
      const hit = pick(...local(event), event.pointerType);
      state.pinned = !!hit;
      select(hit);
    }
  };
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...local(event));
  }, { passive: false });

  // ---- controls --------------------------------------------------------------------------------
  const chips = [
    ...data.categories.map(({ id, name, colour: style }) => [id, name.replace('_', ' '), style]),
    ['all', 'all frames', 'var(--muted)'], ['truth', 'truth', 'var(--truth)'],
    ['path', 'trajectory', 'var(--vehicle)'], ['sigma', 'one sigma', 'var(--ink)'],
  ];
  const hasSigma = frames.some((frame) => frame.elements.some((item) => item.covariance));
  for (const [key, text, style] of chips) {
    if ((key === 'truth' && !truth.length) || (key === 'sigma' && !hasSigma)) continue;
    const chip = document.createElement('button');
    chip.type = 'button';
    chip.textContent = text;
    chip.dataset.layer = key;
    chip.style.setProperty('--colour', style);
    chip.setAttribute('aria-pressed', shown[key]);
    chip.addEventListener('click', () => {
      shown[key] = !shown[key];
      chip.setAttribute('aria-pressed', shown[key]);
      state.pinned = false;
      select(null);
    });
    find('layers').append(chip);
  }
  find('frame').max = frames.length - 1;
  find('frame').addEventListener('input', (event) => { play(false); showFrame(+event.target.value); });
  find('play').addEventListener('click', () => play(!timer));
  find('score').value = state.score;
  const showScore = () => { find('least').querySelector('output').textContent = state.score.toFixed(2); };
  find('score').addEventListener('input', (event) => {
    state.score = +event.target.value;
    paths.fill(null);
    state.pinned = false;
    showScore();
    select(null);
  });
  find('least').hidden = !frames.some((frame) => frame.elements.some((item) => item.score !== undefined));
  find('zoom-in').addEventListener('click', () => zoomAt(1.5, size[0] / 2, size[1] / 2));
  find('zoom-out').addEventListener('click', () => zoomAt(1 / 1.5, size[0] / 2, size[1] / 2));
  find('fit').addEventListener('click', fit);
  find('follow').addEventListener('click', () => {
    if (!state.follow) view.scale = Math.max(view.scale, Math.min(size[0], size[1]) / 70);
    setFollow(!state.follow);
  });
  document.addEventListener('keydown', (event) => {
    if (event.target.matches('input')) return;
    const keys = {
      ArrowLeft: () => showFrame(state.frame - 1), ArrowRight: () => showFrame(state.frame + 1),
      Home: () => showFrame(0), End: () => showFrame(frames.length - 1),
      '+': () => zoomAt(1.25, size[0] / 2, size[1] / 2), '-': () => zoomAt(0.8, size[0] / 2, size[1] / 2),
      Escape: () => { state.pinned = false; select(null); },
    };
    if (event.key === ' ' && !event.target.matches('button')) keys[' '] = () => play(!timer);
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  // The system's choice until somebody presses the button.
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  let chosen = '';
  const applyTheme = () => {
    root.dataset.theme = chosen || (dark.matches ? 'dark' : 'light');
    root.style.colorScheme = root.dataset.theme;
    request();
  };
  dark.addEventListener('change', applyTheme);
  find('theme').addEventListener('click', () => {
    chosen = root.dataset.theme === 'dark' ? 'light' : 'dark';
    applyTheme();
  });

  find('summary').textContent = data.summary;
  applyTheme();
  showScore();
  resize();
  fit();
  const showWanted = () => {
    const wanted = Number((location.hash.match(/frame=(\d+)/) || [])[1]);
    showFrame(Math.max(0, data.frames.findIndex((item) => item.n === wanted)));
  };
  window.addEventListener('hashchange', showWanted);
  showWanted();
  new ResizeObserver(resize).observe(canvas);
  root.dataset.ready = 'true';
})();
