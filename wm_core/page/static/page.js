// Puts into the page what the server sends, and says so when it sends nothing.
"use strict";
(() => {
  const SILENT_MS = 1700, AGAIN_MS = 700, CHECK_MS = 200;
  const silence = document.getElementById("silence");
  let source = null, heard = performance.now(), again = 0;

  const put = (news) => {
    for (const [id, html] of Object.entries(news.html || {})) {
      const place = document.getElementById(id);
      if (place) place.innerHTML = html; // escaped by the server
    }
    for (const [id, address] of Object.entries(news.pictures || {})) {
      const image = document.getElementById(id);
      if (image) image.src = address;
    }
  };

  const listen = () => {
    again = 0;
    if (source) source.close();
    source = new EventSource("/ui/events");
    source.onmessage = (event) => {
      heard = performance.now();
      silence.hidden = true;
      document.body.classList.remove("stale");
      put(JSON.parse(event.data));
      document.body.dataset.news = 1 + Number(document.body.dataset.news || 0);
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) retry();
    };
  };

  const retry = () => {
    if (again) return;
    again = setTimeout(async () => {
      try { // without a token the page itself is the form for one
        const answer = await fetch("/ui/events", { method: "HEAD" });
        if (answer.status === 401 || answer.status === 403) return location.reload();
      } catch { /* the server is not back yet */ }
      listen();
    }, AGAIN_MS);
  };

  setInterval(() => {
    const quiet = performance.now() - heard;
    if (quiet < SILENT_MS) return;
    silence.hidden = false;
    silence.textContent =
      `This page has heard nothing for ${(quiet / 1000).toFixed(0)} s: its server is gone or out of reach. ` +
      "What is shown is old. It goes on by itself.";
    document.body.classList.add("stale");
    if (source.readyState === EventSource.CLOSED) retry();
  }, CHECK_MS);

  listen();
})();
