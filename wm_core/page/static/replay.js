// Turns the pages of an episode: a slider, the keys of the slider, and a button that plays it.
"use strict";
(() => {
  const place = document.getElementById("replay");
  if (!place) return;
  const { base, camera, last, period } = place.dataset;
  const slider = document.getElementById("replay-step");
  const play = document.getElementById("replay-play");
  const images = ["frame", "dream"].map((kind) => [kind, document.getElementById(`replay-${kind}`)]);
  const wait_ms = Math.max(40, 1000 * Number(period));
  let playing = false, asked = 0, later = 0;

  const address = (kind, step) => `${base}/${kind}/${step}?camera=${encodeURIComponent(camera)}`;

  const put = async (id, kind, step) => { // what comes too late is for another step
    const mine = asked;
    const answer = await fetch(address(kind, step));
    const html = await answer.text();
    if (mine === asked) document.getElementById(id).innerHTML = html; // escaped by the server
  };

  const pictures = (step) => Promise.all(images.map(([kind, image]) => image && new Promise((done) => {
    image.onload = image.onerror = () => {
      image.hidden = !image.naturalWidth;
      done();
    };
    image.src = address(kind, step);
  })));

  const show = async (step) => {
    asked += 1;
    clearTimeout(later);
    const mine = asked;
    later = setTimeout(() => put("replay-dreamt", "dreamt", step).catch(() => {}), playing ? 1000 : 150);
    put("replay-numbers", "step", step).catch(() => {});
    await pictures(step);
    return mine === asked;
  };

  const run = async () => {
    while (playing && Number(slider.value) < Number(last)) {
      const begin = performance.now();
      slider.value = Number(slider.value) + 1;
      if (!(await show(slider.value))) break;
      await new Promise((done) => setTimeout(done, begin + wait_ms - performance.now()));
    }
    stop();
  };

  const stop = () => {
    playing = false;
    play.textContent = "Play";
  };

  slider.addEventListener("input", () => {
    stop();
    show(slider.value);
  });
  play.addEventListener("click", () => {
    if (playing) return stop();
    playing = true;
    play.textContent = "Stop";
    if (slider.value === last) slider.value = 0;
    run();
  });
  slider.hidden = play.hidden = false;
  document.getElementById("replay-ways").hidden = true;
  show(slider.value);
})();
