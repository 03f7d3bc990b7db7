"""The merge of language models and world models as an experiment: questions, arms, measures, answers and the page."""
