"""Writes written forms of English as words: dates, amounts, numbers, capitals."""
