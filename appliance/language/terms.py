from services.retrieval.analysis import *
from services.retrieval.analysis import PassageTerms, decode_passage_terms, encode_passage_terms, passage_terms, prefixes
