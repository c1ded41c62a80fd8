"use strict";
// Everything is on the page without this script. It adds sorting, a choice of one cell's figures, details of a number at
// hover and focus, and a switch between light and dark.

const root = document.documentElement;

function setUpTheme(button) {
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (preferred.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  preferred.addEventListener("change", show);
  show();
}

// Of the metrics that the page can be switched between; a page without a switch shows all of its numbers.
const shownMetric = () => document.querySelector("input[name=metric]:checked")?.value;

function setUpSorting(table) {
  const body = table.tBodies[0];
  const gridOrder = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  let sorted = null; // {column, direction}

  const isText = (column) => heads[column].dataset.sort === "text";
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (isText(column)) return cell.textContent.trim();
    const metric = shownMetric();
    const text = cell.querySelector(metric ? `.${metric} data` : "data")?.value ?? "";
    return text === "" ? null : Number(text);
  };
  const compare = (one, other) => {
    const [a, b] = [valueOf(one, sorted.column), valueOf(other, sorted.column)];
    // What has no number comes last, whichever way the others go.
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return sorted.direction === "ascending" ? order : -order;
  };
  const apply = () => {
    heads.forEach((head, column) => head.setAttribute("aria-sort", sorted?.column === column ? sorted.direction : "none"));
    body.append(...(sorted ? [...gridOrder].sort(compare) : gridOrder));
  };
  // Names go from a to z first, numbers from the highest; the third time is the order of the sweep again.
  const next = (column) => {
    const directions = isText(column) ? ["ascending", "descending"] : ["descending", "ascending"];
    if (sorted?.column !== column) return { column, direction: directions[0] };
    return sorted.direction === directions[0] ? { column, direction: directions[1] } : null;
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.title = "Sort by this column";
    button.addEventListener("click", () => {
      sorted = next(column);
      apply();
    });
  });
  document.querySelectorAll("input[name=metric]").forEach((input) => input.addEventListener("change", apply));
}

const MARGIN = 8;

function setUpDetails() {
  let open = null; // {button, tip, pinned}
  let leaving = 0;

  const setReachable = (tip, reachable) => {
    for (const link of tip.querySelectorAll("a")) link.tabIndex = reachable ? 0 : -1;
  };
  const place = (button, tip) => {
    const spot = button.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const below = spot.bottom + MARGIN + size.height <= innerHeight - MARGIN;
    const top = below ? spot.bottom + MARGIN : spot.top - MARGIN - size.height;
    const left = spot.left + spot.width / 2 - size.width / 2;
    const within = (value, extent, whole) => Math.max(MARGIN, Math.min(value, whole - extent - MARGIN));
    Object.assign(tip.style, {
      inset: "auto",
      margin: "0",
      left: `${within(left, size.width, root.clientWidth)}px`,
      top: `${within(top, size.height, innerHeight)}px`,
    });
  };
  const hide = () => {
    clearTimeout(leaving);
    if (open?.tip.matches(":popover-open")) open.tip.hidePopover();
    open?.button.setAttribute("aria-expanded", "false");
    open = null;
  };
  const show = (button, tip, pinned) => {
    clearTimeout(leaving);
    if (open?.button !== button) {
      hide();
      tip.showPopover();
      place(button, tip);
      button.setAttribute("aria-expanded", "true");
    }
    open = { button, tip, pinned: pinned || (open?.button === button && open.pinned) };
    setReachable(tip, open.pinned);
  };
  const leave = () => {
    clearTimeout(leaving);
    // Time to move the pointer from the number to its details.
    leaving = setTimeout(() => open && !open.pinned && !open.tip.contains(document.activeElement) && hide(), 200);
  };

  for (const button of document.querySelectorAll(".place")) {
    const tip = document.getElementById(button.getAttribute("popovertarget"));
    button.removeAttribute("popovertarget");
    button.setAttribute("aria-describedby", tip.id);
    button.setAttribute("aria-expanded", "false");
    tip.popover = "manual";
    setReachable(tip, false);
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && !open?.pinned && show(button, tip, false));
    button.addEventListener("pointerleave", leave);
    tip.addEventListener("pointerenter", () => clearTimeout(leaving));
    tip.addEventListener("pointerleave", leave);
    button.addEventListener("focus", () => button.matches(":focus-visible") && show(button, tip, false));
    button.addEventListener("click", () => {
      if (open?.button === button && open.pinned) hide();
      else show(button, tip, true);
    });
    const left = (event) => {
      if (open?.tip === tip && !tip.contains(event.relatedTarget) && event.relatedTarget !== button) hide();
    };
    button.addEventListener("blur", left);
    tip.addEventListener("focusout", left);
    tip.addEventListener("click", (event) => event.target.closest("a") && hide());
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !open) return;
    const { button, tip } = open;
    if (tip.contains(document.activeElement)) button.focus();
    hide();
  });
  document.addEventListener("pointerdown", (event) => {
    if (open && !open.tip.contains(event.target) && !open.button.contains(event.target)) hide();
  });
  document.addEventListener("scroll", (event) => event.target !== open?.tip && open && place(open.button, open.tip), true);
  addEventListener("resize", hide);
}

// Figures and stations carry the choice that they belong to: an index a list, or * for all of it.
function setUpChooser(section) {
  const form = section.querySelector(".chooser");
  const selects = [...form.querySelectorAll("select")];
  const stations = [...section.querySelectorAll(".station")];
  const belongs = (element) =>
    selects.every((select, position) => ["*", select.value].includes(element.dataset.choice.split(" ")[position]));
  const show = () => {
    for (const station of stations) {
      for (const element of [station, ...station.querySelectorAll(".drawing")]) {
        element.classList.toggle("unchosen", !belongs(element));
      }
    }
    // Without a figure of its own, a choice shows at most what the attack's cells have in common.
    const own = stations.some((station) =>
      [...station.querySelectorAll(".drawing")].some((one) => belongs(one) && !one.dataset.choice.includes("*")));
    section.querySelector(".nothing-seen").hidden = own;
  };
  section.classList.add("choosing");
  form.hidden = selects.length === 0;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
  return (id) => {
    const choice = document.getElementById(id).closest("#seen [data-choice]")?.dataset.choice;
    choice?.split(" ").forEach((index, position) => index !== "*" && selects[position] && (selects[position].value = index));
    show();
  };
}

function setUpLinks(selectFigure) {
  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.matches("details")) target.open = true;
    selectFigure?.(target.id);
    target.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  // A link to where one is already changes no hash.
  document.addEventListener("click", (event) => {
    if (event.target.closest("a[href^='#']")?.hash === location.hash) follow();
  });
  follow();
}

setUpTheme(document.getElementById("dark"));
document.querySelectorAll("table:has(.sort)").forEach(setUpSorting);
setUpDetails();
const seen = document.getElementById("seen");
setUpLinks(seen?.querySelector(".chooser") && setUpChooser(seen));
