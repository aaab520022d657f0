"use strict";
// Pages work without this. With it,
//   data-events="/url"  on an element: fragments of that event stream replace its content;
//   data-swap="id"      on a link or form: of the page that follows, only the element with this id is taken;
//   time[datetime]      shows the reader's own time.
(() => {
  const local = (root) => {
    for (const t of root.querySelectorAll("time[datetime]")) {
      t.title = t.dateTime;
      t.textContent = new Date(t.dateTime).toLocaleString(undefined, {dateStyle: "medium", timeStyle: "medium"});
    }
  };
  // The same element has the focus before and after, if it is still there.
  const keepingFocus = (change) => {
    const id = document.activeElement && document.activeElement.id;
    change();
    const again = id && document.getElementById(id);
    if (again && again !== document.activeElement) again.focus({preventScroll: true});
  };
  const listen = (el) => {
    const source = new EventSource(el.dataset.events);
    source.addEventListener("fragment", (e) => {
      keepingFocus(() => { el.innerHTML = e.data; });
      local(el);
      const news = el.querySelector("[data-say]"), speaker = document.getElementById("say");
      if (news && speaker && speaker.textContent !== news.dataset.say) speaker.textContent = news.dataset.say;
    });
    source.addEventListener("end", () => source.close());
    addEventListener("pagehide", () => source.close());
  };
  const swap = async (id, url, init) => {
    try {
      const res = await fetch(url, init);
      if (new URL(res.url).pathname !== location.pathname) return location.assign(res.url);
      const next = new DOMParser().parseFromString(await res.text(), "text/html").getElementById(id);
      if (!next) return location.assign(res.url);
      keepingFocus(() => document.getElementById(id).replaceWith(next));
      local(next);
      if (!init) history.replaceState(null, "", res.url);
    } catch { location.assign(init ? location.href : url); }
  };
  document.addEventListener("click", (e) => {
    const a = e.target.closest("a[data-swap]");
    if (!a || e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
    e.preventDefault();
    swap(a.dataset.swap, a.href);
  });
  document.addEventListener("submit", (e) => {
    if (!e.target.matches("form[data-swap]")) return;
    e.preventDefault();
    swap(e.target.dataset.swap, e.target.action, {method: "POST", body: new URLSearchParams(new FormData(e.target, e.submitter))});
  });
  local(document);
  document.querySelectorAll("[data-events]").forEach(listen);
})();
