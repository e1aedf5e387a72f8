// In a query a leading hyphen excludes a word, so that `--skull_strip` would find nothing: hyphens before words are dropped.
document.addEventListener("input", ({ target }) => {
  if (target.matches("[data-md-component=search-query]")) target.value = target.value.replace(/(^|\s)-+/g, "$1")
}, true)
