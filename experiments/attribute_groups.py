"""Where a unit stands among the sliders, and what it is called there."""

from jacsup_jax.editor import editor

# All of CelebA's attributes; a data set may have some of them.
_ATTRIBUTES = {
    'Hair': (
        'Bald', 'Bangs', 'Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair',
        'Receding_Hairline', 'Straight_Hair', 'Wavy_Hair',
    ),
    'Face shape': (
        'Chubby', 'Double_Chin', 'High_Cheekbones', 'Oval_Face', 'Pale_Skin',
        'Rosy_Cheeks',
    ),
    'Eyes and brows': (
        'Arched_Eyebrows', 'Bags_Under_Eyes', 'Bushy_Eyebrows', 'Narrow_Eyes',
    ),
    'Nose and mouth': (
        'Big_Lips', 'Big_Nose', 'Mouth_Slightly_Open', 'Pointy_Nose', 'Smiling',
    ),
    'Beard': (
        '5_o_Clock_Shadow', 'Goatee', 'Mustache', 'No_Beard', 'Sideburns',
    ),
    'Accessories and make-up': (
        'Eyeglasses', 'Heavy_Makeup', 'Wearing_Earrings', 'Wearing_Hat',
        'Wearing_Lipstick', 'Wearing_Necklace', 'Wearing_Necktie',
    ),
    'Whole person': ('Attractive', 'Blurry', 'Male', 'Young'),
}  # pyformat: disable
_FACTORS = 'Factors'
_NUISANCE = 'Nuisance'
# In the order in which they are shown.
GROUPS = (*_ATTRIBUTES, _FACTORS, _NUISANCE)
_GROUP_OF = {
    name: group for group, names in _ATTRIBUTES.items() for name in names
}


def find_group(unit: editor.Unit) -> str:
  """Returns which of `GROUPS` a unit is of."""
  if unit.kind == editor.NUISANCE:
    return _NUISANCE
  return _GROUP_OF.get(unit.name, _FACTORS)


def make_label(name: str) -> str:
  """Returns the name of a unit for people: `Big_Nose` is `Big nose`."""
  if name not in _GROUP_OF:
    return name
  # "O'Clock" is the one word that is more than its letters.
  words = name.replace('_o_Clock', " o'clock").replace('_', ' ')
  return words[:1] + words[1:].lower()
