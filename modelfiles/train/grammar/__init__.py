"""The language nano is trained on: wording as data, one module a skill, `mix.sample` on top."""
