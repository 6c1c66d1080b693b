// Keys that work anywhere on the page.

/** Escape stops; the space bar plays or pauses, unless it is typed or presses something. */
export function startShortcuts({ stop, toggle }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.repeat) return;
    if (event.key === "Escape") stop();
    if (event.key !== " " || event.target.closest("a, button, input, select, summary, textarea")) return;
    event.preventDefault(); // which would scroll
    toggle();
  });
}
