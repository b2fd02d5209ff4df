"use strict";
// The viewer of one study: images from the page itself, windowed in the browser; nothing is loaded.
(async () => {
  const find = (id) => document.getElementById(id);
  const study = JSON.parse(find("study").textContent);
  const { side, z, number, edges, classes } = study;
  const n = z.length;
  const screen = find("image"), chart = find("chart"), slider = find("slider");
  const state = { at: 0, level: 40, width: 80 };
  const hu = await unpack(find("pixels").textContent, n * side * side);

  // low bytes, then high bytes, compressed by zlib, in base64
  async function unpack(text, count) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const values = new Int16Array(count);
    for (let i = 0; i < count; i++) values[i] = planes[i] | (planes[count + i] << 8);
    return values;
  }

  const plain = document.createElement("canvas"); // one image at its own resolution
  plain.width = plain.height = side;
  const pencil = plain.getContext("2d");
  const grey = pencil.createImageData(side, side);

  // give a canvas as many pixels as the screen has, and return its context with sizes in CSS pixels
  function sized(canvas) {
    const scale = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.round(box.width * scale);
    canvas.height = Math.round(box.height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    return [context, box.width, box.height];
  }

  function drawImage() {
    const low = state.level - state.width / 2, factor = 255 / state.width, start = state.at * side * side;
    for (let i = 0, to = 0; i < side * side; i++, to += 4) {
      grey.data[to] = grey.data[to + 1] = grey.data[to + 2] = (hu[start + i] - low) * factor; // clamped
      grey.data[to + 3] = 255;
    }
    pencil.putImageData(grey, 0, 0);
    const [context, wide, high] = sized(screen);
    context.imageSmoothingQuality = "high";
    context.drawImage(plain, 0, 0, wide, high);
  }

  const margin = { left: 30, right: 8, top: 8, bottom: 20 };
  const low = Math.min(...z), span = Math.max(...z) - low || 1;
  const across = (mm, wide) => margin.left + ((mm - low) / span) * (wide - margin.left - margin.right);

  function drawChart() {
    const [context, wide, high] = sized(chart);
    const up = (p) => high - margin.bottom - p * (high - margin.top - margin.bottom);
    const line = (x0, y0, x1, y1, colour, width) => {
      context.beginPath(); context.moveTo(x0, y0); context.lineTo(x1, y1);
      context.strokeStyle = colour; context.lineWidth = width; context.stroke();
    };
    context.font = "11px system-ui, sans-serif"; context.fillStyle = "#5d6b78";
    for (const p of [0, 0.5, 1]) {
      line(margin.left, up(p), wide - margin.right, up(p), "#dde3e8", 1);
      context.fillText(String(p), 6, up(p) + 4);
    }
    context.fillText(`z ${low.toFixed(0)} mm`, margin.left, high - 4);
    const end = `${(low + span).toFixed(0)} mm`;
    context.fillText(end, wide - margin.right - context.measureText(end).width, high - 4);
    for (const one of classes) {
      context.beginPath();
      one.p.forEach((p, i) => { if (p !== null) context.lineTo(across(z[i], wide), up(p)); });
      context.strokeStyle = one.colour; context.lineWidth = one.name === "any" ? 2.2 : 1.6;
      context.setLineDash(one.name === "any" ? [5, 3] : []);
      context.stroke();
    }
    context.setLineDash([]);
    line(across(z[state.at], wide), margin.top, across(z[state.at], wide), high - margin.bottom, "rgba(29, 39, 49, 0.45)", 3);
  }

  function drawWords() {
    const image = number[state.at] === null ? "" : `image ${number[state.at]}, `;
    find("where").textContent = `${image}z ${z[state.at].toFixed(1)} mm (${state.at + 1} of ${n})`;
    [find("left").textContent, find("top").textContent] = edges[state.at] ?? ["", ""]; // sides of the patient
    find("window").textContent = `level ${Math.round(state.level)}, width ${Math.round(state.width)} HU`;
    classes.forEach((one, i) => {
      const p = one.p[state.at];
      find(`p${i}`).textContent = p === null ? "–" : p.toFixed(2);
    });
    for (const button of document.querySelectorAll("[data-window]")) {
      button.setAttribute("aria-pressed", button.dataset.window === `${state.level} ${state.width}`);
    }
    slider.value = state.at;
  }

  let waiting = false;
  function show(change) {
    Object.assign(state, change);
    state.at = Math.min(n - 1, Math.max(0, state.at));
    state.width = Math.min(4000, Math.max(2, state.width));
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => { waiting = false; drawImage(); drawChart(); drawWords(); });
    }
  }
  const windowOf = (words) => { const [level, width] = words.split(" ").map(Number); show({ level, width }); };

  let last = 0;
  screen.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.timeStamp - last < 25) return; // touch pads send many events for one movement
    last = event.timeStamp;
    show({ at: state.at + Math.sign(event.deltaY) });
  }, { passive: false });

  const moves = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 5, PageUp: -5, Home: -n, End: n };
  screen.addEventListener("keydown", (event) => {
    const preset = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (preset) windowOf(preset.dataset.window);
    else if (event.key in moves) show({ at: state.at + moves[event.key] });
    else return;
    event.preventDefault();
  });

  let drag = null;
  screen.addEventListener("pointerdown", (event) => {
    screen.focus({ preventScroll: true });
    screen.setPointerCapture(event.pointerId);
    drag = { x: event.clientX, y: event.clientY, ...state };
  });
  screen.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const right = event.clientX - drag.x, down = event.clientY - drag.y;
    if (event.pointerType === "touch") show({ at: drag.at + Math.round(down / 14) });
    else show({ width: drag.width + right * Math.max(1, drag.width / 200), level: drag.level - down });
  });
  for (const end of ["pointerup", "pointercancel"]) screen.addEventListener(end, () => { drag = null; });

  const jump = (event) => {
    const box = chart.getBoundingClientRect(), x = event.clientX - box.left;
    const gaps = z.map((mm) => Math.abs(across(mm, box.width) - x));
    show({ at: gaps.indexOf(Math.min(...gaps)) });
  };
  chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); jump(event); });
  chart.addEventListener("pointermove", (event) => { if (event.buttons) jump(event); });
  slider.addEventListener("input", () => show({ at: Number(slider.value) }));
  for (const button of document.querySelectorAll("[data-window]")) {
    button.addEventListener("click", () => windowOf(button.dataset.window));
  }
  for (const button of document.querySelectorAll("[data-at]")) {
    button.addEventListener("click", () => {
      show({ at: Number(button.dataset.at) });
      find("viewer").scrollIntoView({ behavior: "smooth", block: "nearest" });
    });
  }
  new ResizeObserver(() => show({})).observe(screen);
  const most = classes.find((one) => one.name === "any").key;
  show({ at: most === null ? Math.floor(n / 2) : most });
  find("viewer").dataset.ready = "true";
})().catch((error) => {
  document.getElementById("where").textContent = `The viewer cannot run in this browser: ${error.message}`;
});
