"""How the page looks, and the script of its picture box."""

from __future__ import annotations

CSS = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto; }
footer { display: none !important; }
.html-container { padding: 0 !important; }
.c2l-panel { gap: .75rem !important; }
.c2l-panel > .block:first-child:not(:has(.c2l-status)) { display: none; }
.c2l-header { align-items: center; }
.c2l-header > .block:last-child { flex: 0 1 320px !important; }
.c2l-head h1 { font-size: 1.5rem; margin: 0 0 .15rem; font-weight: 650; }
.c2l-head p { margin: 0; color: var(--body-text-color-subdued); }
.c2l-examples { gap: .4rem !important; flex-wrap: wrap !important; }
.c2l-seed { align-items: end !important; }
.c2l-seed button { flex: 0 0 auto !important; min-width: 0 !important; width: auto !important; height: 2.4rem; }
@media (max-width: 640px) {
  .c2l-header { flex-wrap: wrap !important; }
  .c2l-header > .block { flex: 1 0 100% !important; }
  .main { padding: .75rem 1rem !important; }
  .tab-container button { padding: 0 .5rem !important; font-size: .95rem; }
}
.c2l-examples button {
  flex: 0 1 auto !important; min-width: 0 !important; width: auto !important; font-weight: 400 !important;
  font-size: .82rem !important; padding: .25rem .7rem !important; border-radius: 999px !important;
}
.c2l-status {
  padding: .5rem .75rem; border-radius: 8px; background: var(--background-fill-secondary);
  color: var(--body-text-color-subdued); font-size: .9rem; overflow-wrap: anywhere;
}
.c2l-failure { background: #fdecea; color: #8a1c12; border: 1px solid #f3b7b1; }
.dark .c2l-failure { background: #3a1714; color: #ffb9b0; border-color: #6d2a23; }
.c2l-working { display: flex; gap: .75rem; align-items: center; }
.c2l-working > div { flex: 1; min-width: 0; }
.c2l-bar { height: 5px; margin-top: .35rem; border-radius: 3px; background: var(--border-color-primary); }
.c2l-bar { overflow: hidden; }
.c2l-bar i { display: block; height: 100%; border-radius: 3px; background: var(--color-accent); transition: width .2s; }
.c2l-bar .c2l-endless { width: 30%; animation: c2l-go 1.4s ease-in-out infinite alternate; }
@keyframes c2l-go { from { margin-left: 0 } to { margin-left: 70% } }
.c2l-stop {
  border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .3rem .8rem; cursor: pointer;
  background: var(--background-fill-primary); color: var(--body-text-color);
}
.c2l-stop:disabled { opacity: .5; }
.c2l-gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(142px, 1fr)); gap: .75rem; }
.c2l-gallery figure {
  margin: 0; border: 1px solid var(--border-color-primary); border-radius: 10px; overflow: hidden; max-width: 280px;
  background: var(--background-fill-primary); display: flex; flex-direction: column;
}
.c2l-gallery figure img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; margin: 0; }
.c2l-gallery figcaption {
  display: flex; gap: .5rem; align-items: baseline; padding: .35rem .6rem; font-size: .8rem;
  color: var(--body-text-color-subdued);
}
.c2l-gallery figcaption b { color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.c2l-gallery figcaption span { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; }
.c2l-gallery figcaption a { margin-left: auto; }
.c2l-gallery h4 {
  grid-column: 1 / -1; margin: .25rem 0 -.35rem; font-size: .9rem; font-weight: 600; color: var(--body-text-color);
  overflow-wrap: anywhere;
}
.c2l-sheet { max-width: 100%; height: auto; margin: 0 0 .75rem; border-radius: 10px; }
.c2l-all { display: inline-block; margin-top: .75rem; font-size: .85rem; }
.c2l-empty {
  min-height: 190px; display: grid; place-items: center; text-align: center; padding: 1rem; border-radius: 10px;
  border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued);
}
.c2l-picture { display: flex; gap: .75rem; align-items: center; flex-wrap: wrap; }
.c2l-picture img { width: 84px; height: 84px; object-fit: cover; border-radius: 8px; margin: 0; }
.c2l-picture label {
  flex: 1; min-width: 150px; padding: .9rem; text-align: center; cursor: pointer; border-radius: 8px;
  border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued);
}
.c2l-picture label:focus-within { outline: 2px solid var(--color-accent); }
.c2l-picture input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.c2l-picture button { text-decoration: underline; color: var(--body-text-color-subdued); }
.c2l-picture em { color: #b3261e; font-style: normal; }
"""

PICTURE_TEMPLATE = """<div class="c2l-picture">
${value ? `<img alt="the uploaded picture" src="${value}">` : ``}
<label><input type="file" accept="image/png,image/jpeg,image/webp" aria-label="Picture">
${value ? `Another picture` : `Choose a picture, or drop it here (PNG, JPEG, WebP)`}</label>
${value ? `<button type="button">Remove</button>` : ``}
</div>"""

PICTURE_SCRIPT = """
const SIDE = 1024, BYTES = 1500000;
const read = file => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(file);
});
const take = async file => {
  if (!file) return;
  let address = await read(file);
  const image = new Image();
  image.src = address;
  try { await image.decode(); } catch (error) { props.value = ''; alert('This file is not a picture.'); return; }
  const side = Math.max(image.naturalWidth, image.naturalHeight);
  if (side > SIDE || file.size > BYTES) {
    const scale = Math.min(1, SIDE / Math.min(image.naturalWidth, image.naturalHeight));
    const canvas = document.createElement('canvas');
    canvas.width = Math.round(image.naturalWidth * scale);
    canvas.height = Math.round(image.naturalHeight * scale);
    canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
    address = canvas.toDataURL('image/jpeg', 0.95);
  }
  props.value = address;
};
element.addEventListener('change', event => { if (event.target.files) take(event.target.files[0]); });
element.addEventListener('click', event => { if (event.target.closest('button')) props.value = ''; });
element.addEventListener('dragover', event => event.preventDefault());
element.addEventListener('drop', event => { event.preventDefault(); take(event.dataTransfer.files[0]); });
"""

DICE = "() => Math.floor(Math.random() * 1000000)"
