"""The whole experiment, step by step: each row of it is done on a real lab, and judged by what is seen there."""
