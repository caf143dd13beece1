"""From text to token ids and back.

`tokenizer` loads a model's tokenizer. `chat_template` makes one text of a system message and a prompt.
`token_ids` checks the ids of a text. `detokenizer` gives new tokens the text that they have after a context.
"""
