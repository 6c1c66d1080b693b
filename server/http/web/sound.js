// How loud everything is played, and whether takes are played again and again.

import { byId } from "./dom.js";
import { recall, remember } from "./storage.js";

const NAME = "volume"; // in the browser's storage
const volume = byId("volume");
const loop = byId("loop");
const players = [];

function showVolume() {
  volume.setAttribute("aria-valuetext", `${Math.round(100 * Number(volume.value))} %`);
  for (const player of players) player.volume = Number(volume.value);
}

/** Have a player be as loud as the control says. */
export function followVolume(player) {
  players.push(player);
  showVolume();
}

/** Have both controls work on a player. */
export function startSound(player) {
  volume.addEventListener("input", showVolume);
  volume.addEventListener("change", () => remember(NAME, volume.value));
  loop.addEventListener("click", () => {
    player.loops = !player.loops;
    loop.setAttribute("aria-pressed", String(player.loops));
  });
  volume.value = recall(NAME) ?? 1;
  followVolume(player);
}
