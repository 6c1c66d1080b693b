// How loud takes are played, and whether again and again.

import { byId } from "./dom.js";

const NAME = "volume"; // in the browser's storage
const volume = byId("volume");
const loop = byId("loop");

/** Have the controls work on a player. */
export function startSound(player) {
  const show = () => {
    volume.setAttribute("aria-valuetext", `${Math.round(100 * player.volume)} %`);
    loop.setAttribute("aria-pressed", String(player.loops));
  };
  volume.addEventListener("input", () => {
    player.volume = Number(volume.value);
    show();
  });
  volume.addEventListener("change", () => {
    try {
      localStorage.setItem(NAME, volume.value);
    } catch (error) {
      console.info("This browser keeps nothing for this page:", error.message);
    }
  });
  loop.addEventListener("click", () => {
    player.loops = !player.loops;
    show();
  });
  try {
    volume.value = localStorage.getItem(NAME) ?? 1;
  } catch (error) {
    console.info("This browser keeps nothing for this page:", error.message);
  }
  player.volume = Number(volume.value);
  show();
}
