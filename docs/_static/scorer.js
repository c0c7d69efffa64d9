// The site's search: pages that explain come before functions of that name.
var Scorer = {
  objNameMatch: 4,
  objPartialMatch: 1,
  objPrio: {0: 0, 1: 0, 2: -5},
  objPrioDefault: 0,
  title: 20,
  partialTitle: 9,
  term: 5,
  partialTerm: 2,
};
