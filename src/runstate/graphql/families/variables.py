"""Variables: variable, variables, createVariable, updateVariable, deleteVariable."""

from runstate.documents.access import Scope
from runstate.graphql.families.family import family
from runstate.rows.variables import Variable

FAMILY = family(Variable, scope=Scope.PROPOSE, lookup="name", overwrite=True)
