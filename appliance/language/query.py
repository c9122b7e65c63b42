from services.retrieval.query_analysis import *
from services.retrieval.query_analysis import AnalysedQuery, Language, analyse_query, detect_language, DocumentFrequencies
