// Takes files that are dropped onto the page.

/** `ondrop` is called with the files; while some are held over the page, the zone has the class `over`. */
export function takeDropped(zone, ondrop) {
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault(); // the browser would leave the page for the file
      zone.classList.toggle("over", kind === "dragover");
      if (kind === "drop") ondrop(event.dataTransfer.files);
    });
  }
}
