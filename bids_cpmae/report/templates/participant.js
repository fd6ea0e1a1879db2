"use strict";
for (const box of document.querySelectorAll("input.outlines")) {
  box.addEventListener("change", () => box.closest("section").classList.toggle("bare", !box.checked));
}

const bytesOf = (id) => {
  const text = atob(document.getElementById(id).textContent);
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
};
const unpacked = (id) => new Response(
  new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip")));

const startViewer = async () => {
  const choice = document.getElementById("volume");
  const state = document.getElementById("state");
  const canvas = document.getElementById("head");
  if (!document.createElement("canvas").getContext("webgl2")) {
    state.textContent = "This browser draws no WebGL 2; the pictures below show the same face.";
    return;
  }
  const program = document.createElement("script");
  program.textContent = await unpacked("niivue").text();
  document.head.append(program);

  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1], show3Dcrosshair: false, isOrientCube: false, dragAndDropEnabled: false,
    loadingText: "", logLevel: "error", crosshairWidth: 0.5,
  });
  await viewer.attachToCanvas(canvas);
  viewer.opts.multiplanarShowRender = niivue.SHOW_RENDER.ALWAYS;

  const turn = (azimuth, elevation, cut = false) => {
    viewer.setSliceType(viewer.sliceTypeRender);
    viewer.setClipPlane(cut ? [0, 270, 0] : [2, 0, 0]);
    viewer.setRenderAzimuthElevation(azimuth, elevation);
  };
  const show = async () => {
    state.textContent = "Loading …";
    for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
    const content = await unpacked(`volume-${choice.value}`).arrayBuffer();
    await viewer.loadFromArrayBuffer(content, "head.nii");
    await viewer.setVolumeRenderIllumination(0.7);
    turn(180, 10);
    state.textContent = "";
    canvas.dataset.drawn = choice.value;
  };
  for (const button of document.querySelectorAll("[data-turn]")) {
    button.addEventListener("click", () => turn(...button.dataset.turn.split(",").map(Number)));
  }
  document.querySelector("[data-cut]").addEventListener("click", () => turn(240, 10, true));
  document.querySelector("[data-slices]").addEventListener(
    "click", () => viewer.setSliceType(viewer.sliceTypeMultiplanar));
  choice.addEventListener("change", show);
  await show();
};

if (document.getElementById("viewer")) {
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    startViewer().catch((error) => {
      document.getElementById("state").textContent = `The 3-D view could not be drawn: ${error.message}`;
      console.error(error);
    });
  }, { rootMargin: "200px" });
  seen.observe(document.getElementById("stage"));
}
