// The film moves the line over the bars and marks the rows of the labels that are shown; a row's button moves the film.
const film = document.getElementById("film");
if (film) {
  const rows = [...document.querySelectorAll(".spans tbody tr")];
  const lines = [...document.querySelectorAll(".now")];
  const follow = () => {
    for (const row of rows) {
      const active = Number(row.dataset.start) <= film.currentTime && film.currentTime < Number(row.dataset.end);
      row.classList.toggle("active", active);
    }
    for (const line of lines) {
      const x = film.duration ? (100 * film.currentTime) / film.duration : 0;
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.removeAttribute("hidden");
    }
  };
  film.addEventListener("loadedmetadata", follow);
  film.addEventListener("timeupdate", follow);
  film.addEventListener("error", () => {
    film.hidden = true;
    document.getElementById("unplayable").hidden = false;
  });
  for (const button of document.querySelectorAll(".jump")) {
    button.addEventListener("click", () => {
      film.currentTime = Number(button.dataset.start);
    });
  }
}
